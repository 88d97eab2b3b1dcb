"""The command line if torch or the library does not load, with a terminal of ASCII only, and with a closed pipe."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gnna_plugin import _load
from gnna_plugin.tools import cli, doctor

PACKAGE = Path(_load.__file__).parent
TORCH = {
    "torch is missing": 'raise ModuleNotFoundError("No module named \'torch\'", name="torch")',
    "torch is broken": 'raise OSError("libc10.so: cannot open shared object file")',
    "another torch": '__version__ = "1.0.0"\nclass version:\n    cuda = None',
}
SAYS = {
    "torch is missing": ("torch is not installed for", "install torch, then build"),
    "torch is broken": ("OSError: libc10.so: cannot open", "check that `import torch` works"),
    "another torch": ("was built for torch", "rebuild with `pip install"),
}


@pytest.fixture(params=sorted(TORCH))
def broken(request, tmp_path):
    """Make a copy of the package, a torch that does not load, and a console script. Returns (kind, folder)."""
    shutil.copytree(PACKAGE, tmp_path / "gnna_plugin", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (tmp_path / "gnna_plugin" / _load.LIBRARY).touch()
    (tmp_path / "torch.py").write_text(TORCH[request.param])
    (tmp_path / "gnna").write_text("import sys\nfrom gnna_plugin.tools.cli import main\nsys.exit(main())\n")
    return request.param, tmp_path


def run(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True,
                          timeout=120, check=False)  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("start", [("gnna",), ("-m", "gnna_plugin")], ids=" ".join)
def test_help_and_doctor_work_and_other_commands_end_with_one_sentence(broken, start):
    kind, folder = broken
    status, out, err = run(folder, *start, "--help")
    assert status == 0 and "gnna doctor" in out and not err
    status, out, err = run(folder, *start, "doctor")
    found, following = SAYS[kind]
    assert status == 1 and not err
    assert found in out and following in out.partition("next: ")[2]
    assert out.strip().splitlines()[-1].startswith("Something is wrong: gnna_plugin")
    status, out, err = run(folder, *start, "explain", "--graph", "community")
    assert status == 1 and not out and err.count("\n") == 1
    assert err.startswith("gnna: ") and found in err and "`gnna doctor`" in err


def test_an_import_in_a_script_still_fails(broken):
    _, folder = broken
    (folder / "train.py").write_text("import gnna_plugin\n")
    for start in (("train.py",), ("-m", "train")):
        status, _, err = run(folder, *start)
        assert status == 1 and "Error: " in err.strip().splitlines()[-1]


def test_which_processes_are_the_command_line():
    assert _load._is_command_line(["/usr/bin/gnna", "doctor"], ["python", "/usr/bin/gnna", "doctor"])
    assert _load._is_command_line(["-m", "doctor"], ["python", "-m", "gnna_plugin", "doctor"])
    assert not _load._is_command_line(["-m"], ["python", "-m", "gnna_plugin.tools.compare.worker"])
    assert not _load._is_command_line(["train.py", "-m", "gnna_plugin"], ["python", "train.py", "-m", "gnna_plugin"])
    assert not _load._is_command_line([""], ["python"])


COMMANDS = [
    *([name, "--help"] for name in sorted(cli.COMMANDS)),
    ["doctor"],
    ["explain", "--graph", "community:300x3000"],
    ["compare", "--graph", "community:300x3000", "--epochs", "1", "--device", "cpu"],
    ["compare", "--graph", "gr\u00f6\u00dfe.csv"],
]


@pytest.mark.slow
@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_every_command_prints_to_an_ascii_terminal(monkeypatch, argv):
    pytest.importorskip("torch_geometric")
    monkeypatch.setattr(doctor, "_framework", lambda name, framework: (doctor.OK, "9.9, \u00b1 active", ""))
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    try:
        status = cli.main(argv)
    except SystemExit as ended:
        status = ended.code
    for stream in streams.values():
        stream.flush()
    printed = b"".join(stream.buffer.getvalue() for stream in streams.values())
    assert status == (2 if "gr\u00f6\u00dfe.csv" in argv else 0) and printed
    if argv == ["doctor"]:
        assert b"9.9, +- active" in printed


def test_a_reader_that_ends_early_is_no_traceback():
    command = f"{sys.executable} -m gnna_plugin doctor | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "Traceback" not in done.stderr
