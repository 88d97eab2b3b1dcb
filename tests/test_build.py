"""The build's decisions, and the messages if library, torch and source tree do not fit together."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gnna_plugin import _load
from gnna_plugin._version import __version__

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def setup_py():
    if not (ROOT / "setup.py").is_file():
        pytest.skip("needs the source tree")
    spec = importlib.util.spec_from_file_location("gnna_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- the choice of parts


@pytest.mark.parametrize(
    ("nvcc", "torch_cuda", "wish", "builds", "because"),
    [
        ("13.0", "13.0", None, True, "fits"),
        ("13.2", "13.0", None, True, "fits"),
        ("12.4", "12.8", "", True, "fits"),
        ("13.0", "13.0", "1", True, "fits"),
        ("13.0", "13.0", "0", False, "GNNA_CUDA=0"),
        ("12.4", "13.0", None, False, "nvcc is 12.4, but torch was built for CUDA 13.0"),
        ("1.3", "13.0", None, False, "nvcc is 1.3"),
        (None, "13.0", None, False, "no nvcc"),
        ("13.0", None, None, False, "torch 2.13.0+cpu has no CUDA"),
        (None, None, None, False, "torch 2.13.0+cpu has no CUDA"),
        (None, None, "0", False, "GNNA_CUDA=0"),
    ],
)
def test_the_cuda_part_is_built_if_nvcc_fits_torch(setup_py, nvcc, torch_cuda, wish, builds, because):
    build, reason = setup_py.decide_cuda(nvcc, torch_cuda, wish, "2.13.0+cpu")
    assert build is builds
    assert because in reason


@pytest.mark.parametrize(
    ("nvcc", "torch_cuda", "wish", "message"),
    [
        (None, "13.0", "1", "GNNA_CUDA=1 asks for the CUDA part, but no nvcc"),
        ("12.4", "13.0", "1", "but nvcc is 12.4"),
        ("13.0", None, "1", "has no CUDA"),
        ("13.0", "13.0", "yes", "'yes'"),
    ],
)
def test_a_cuda_part_that_is_required_but_impossible_ends_the_build(setup_py, nvcc, torch_cuda, wish, message):
    with pytest.raises(SystemExit, match=message):
        setup_py.decide_cuda(nvcc, torch_cuda, wish)


def test_the_choice_of_architectures(setup_py):
    known = {75, 80, 86, 87, 89, 90, 100, 103, 120}
    assert setup_py.choose_archs(known) == (75, 80, 86, 89, 90, 100, 120)
    assert setup_py.choose_archs({70, 75, 80, 90}) == (75, 80, 90)  # an older nvcc
    assert setup_py.choose_archs(known, "90") == (90,)
    assert setup_py.choose_archs(known, "9.0; 8.0,90") == (80, 90)
    with pytest.raises(SystemExit, match="GNNA_CUDA_ARCHS names 35; this nvcc knows"):
        setup_py.choose_archs(known, "35")
    with pytest.raises(SystemExit, match="names hopper"):
        setup_py.choose_archs(known, "hopper")


def test_an_object_is_compiled_again_only_if_it_is_out_of_date(setup_py, tmp_path):
    header, result, depends = tmp_path / "with space.h", tmp_path / "a.cpp.o", tmp_path / "a.cpp.d"
    header.write_text("")
    depends.write_text(f"{result}: \\\n {str(header).replace(' ', chr(92) + ' ')}\n")
    assert not setup_py.is_current(result, depends, ["g++", "-c"])  # was never compiled
    result.write_text("")
    result.with_suffix(".cmd").write_text("g++ -c")
    os.utime(header, ns=(1, 1))
    assert setup_py.is_current(result, depends, ["g++", "-c"])
    assert not setup_py.is_current(result, depends, ["g++", "-O3", "-c"])  # another command
    os.utime(header, ns=(2**62, 2**62))
    assert not setup_py.is_current(result, depends, ["g++", "-c"])  # an edited header
    header.unlink()
    assert not setup_py.is_current(result, depends, ["g++", "-c"])  # a deleted header


@pytest.mark.parametrize(
    ("torch_version", "cuda", "local"),
    [
        ("2.13.0+cpu", None, "+torch2.13"),
        ("2.13.1", None, "+torch2.13"),
        ("2.11.0+cu130", "13.0", "+torch2.11.cu13"),
        ("2.14.0a0+git1234", None, "+torch2.14.0a0"),
    ],
)
def test_the_local_version_names_what_the_library_fits(setup_py, torch_version, cuda, local):
    assert setup_py.local_version(torch_version, cuda) == local


def test_the_library_does_not_depend_on_the_version_of_python():
    """The wheel's tag says so: py3-none."""
    found = subprocess.run(["nm", "-D", "--undefined-only", _load.HERE / _load.LIBRARY], capture_output=True, text=True)
    if found.returncode:
        pytest.skip("needs nm")
    assert not [line for line in found.stdout.splitlines() if line.split()[-1].startswith(("Py", "_Py"))]


# ---- the build that is running


def test_build_info_matches_this_torch():
    info = _load.build_info()
    assert info["version"] == __version__
    assert _load.mismatch_message(info, torch.__version__, torch.version.cuda) is None
    assert _load.built_with_cuda() is (info["cuda"] is not None)
    assert info["cuda"] is None or info["archs"]
    assert info["reason"] and info["compiler"]


def test_build_info_is_a_copy():
    _load.build_info()["cuda"] = "changed"
    assert _load.build_info()["cuda"] != "changed"


def test_loading_twice_is_harmless():
    _load.load()
    _load.load()


def test_import_initialises_no_cuda():
    code = "import gnna_plugin, torch; assert not torch.cuda.is_initialized()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_adapters_are_part_of_the_package(tmp_path):
    code = "import gnna_plugin, gnna_plugin.adapters as a; print(a.__name__)"
    # If the installed package is tested, the checkout is not tried, because it would hide that package.
    from_checkout = Path(_load.__file__).parent == ROOT / "gnna_plugin"
    for folder in (tmp_path, ROOT) if from_checkout else (tmp_path,):
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.stdout.strip() == "gnna_plugin.adapters", done.stderr


# ---- messages if library and torch do not fit


CPU = {"torch": "2.13.0+cpu", "torch_cuda": None}
GPU = {"torch": "2.11.0+cu130", "torch_cuda": "13.0"}


@pytest.mark.parametrize(
    ("built", "version", "cuda"),
    [
        (CPU, "2.13.0+cpu", None),
        (CPU, "2.13.0", None),
        (CPU, "2.13.1+cpu", None),
        (GPU, "2.11.0+cu130", "13.0"),
        (GPU, "2.11.0", "13.0"),
        (GPU, "2.11.0+cu132", "13.2"),
    ],
)
def test_a_library_fits_its_torch(built, version, cuda):
    assert _load.mismatch_message(built, version, cuda) is None


@pytest.mark.parametrize(
    ("built", "version", "cuda", "says"),
    [
        (CPU, "2.11.0+cpu", None, "was built for torch 2.13.0+cpu, found 2.11.0+cpu: rebuild with `pip install "),
        (CPU, "2.13.0rc1+cpu", None, "found 2.13.0rc1+cpu"),
        (CPU, "2.14.0a0+git1234", None, "found 2.14.0a0+git1234"),
        (CPU, "2.13.0", "13.0", "built for torch 2.13.0+cpu, found 2.13.0 (CUDA 13.0)"),
        (GPU, "2.11.0+cu128", "12.8", "found 2.11.0+cu128"),
        (GPU, "2.11.0", None, "found 2.11.0 (no CUDA)"),
    ],
)
def test_another_torch_is_named_with_the_way_to_rebuild(built, version, cuda, says):
    message = _load.mismatch_message(built, version, cuda)
    assert says in message
    assert "--no-build-isolation --force-reinstall --no-deps" in message


def copy_of_tree(folder, *, checkout):
    """Copy the package's Python files, without library and build info, laid out as a checkout or an installation."""
    ignore = shutil.ignore_patterns("*.so", "_build_info.py", "__pycache__")
    shutil.copytree(Path(_load.__file__).parent, folder / "gnna_plugin", ignore=ignore)
    if checkout:
        (folder / "csrc").mkdir()
        (folder / "setup.py").touch()
    return folder


def import_error(folder, *search_path):
    """Load the package in a process that runs in `folder`, and return the last line of its error output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, search_path))}
    done = subprocess.run(
        [sys.executable, "-c", "from gnna_plugin import _load; _load.load()"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode
    return done.stderr.strip().splitlines()[-1]


def test_an_unbuilt_checkout_says_how_to_build_it(tmp_path):
    # The search path is empty, because this environment may have an installed gnna_plugin that the copy would hide.
    checkout = copy_of_tree(tmp_path, checkout=True)
    message = _load.missing_library_message(checkout / "gnna_plugin", [])
    assert f"{checkout} is not built" in message
    assert f"pip install --no-build-isolation -e {checkout}" in message


def test_a_checkout_that_hides_the_installed_package_says_so(tmp_path):
    (tmp_path / "checkout").mkdir()
    checkout = copy_of_tree(tmp_path / "checkout", checkout=True)
    installed = tmp_path / "site" / "gnna_plugin"
    installed.mkdir(parents=True)
    (installed / _load.LIBRARY).touch()
    message = import_error(checkout, tmp_path / "site")
    assert message.startswith("ImportError: Python imported gnna_plugin from the checkout")
    assert str(installed) in message
    assert "run from another folder" in message


def test_an_install_without_its_library_says_so(tmp_path):
    assert "is damaged, install it again" in import_error(copy_of_tree(tmp_path, checkout=False))


def test_a_library_for_another_torch_is_not_loaded(tmp_path):
    installed = copy_of_tree(tmp_path, checkout=False) / "gnna_plugin"
    (installed / _load.LIBRARY).write_bytes(b"not a library: loading it would fail differently")
    (installed / "_build_info.py").write_text('INFO = {"torch": "1.0.0+cpu", "torch_cuda": None}\n')
    message = import_error(tmp_path)
    assert message.startswith("ImportError: gnna_plugin was built for torch 1.0.0+cpu, found")
