"""Loads the compiled library once, after checking that it was built for the running torch.

A library that was compiled against another torch may load and then crash or misread tensors. The versions are therefore
compared before loading. If the library is missing or does not match, an ImportError names the command that builds it.
Nothing here touches a CUDA device.

The command line starts even if the library does not load, because `gnna doctor` has to say why.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LIBRARY = "libgnna_plugin.so"

_loaded = False
# Why the library did not load. It is set only in a process of the command line; elsewhere the import fails.
failure: Exception | None = None


def load_for_package() -> bool:
    """Load the library and return whether it is there. `gnna run` does not need it.

    Raises:
        ImportError, OSError: the library cannot be loaded, and this process is not the command line.
    """
    global failure
    if sys.argv[1:2] == ["run"] and _is_command_line(sys.argv, sys.orig_argv):
        return False  # it starts another process, which loads the library
    try:
        load()
    except Exception as error:  # a torch that does not fit the system raises more than ImportError
        if not _is_command_line(sys.argv, sys.orig_argv):
            raise
        failure = error
    return failure is None


def failure_message() -> str:
    """Return what is wrong and what to do, in one sentence, if the library did not load."""
    text = " ".join(str(failure).split())
    if isinstance(failure, ImportError) and failure.name == "torch" and isinstance(failure, ModuleNotFoundError):
        return f"torch is not installed for {sys.executable}: install torch, then build gnna_plugin for it"
    if text.startswith(("gnna_plugin", "Python imported gnna_plugin")):
        return text
    return (
        f"gnna_plugin cannot be loaded ({type(failure).__name__}: {text}): check that `import torch` works, then build "
        f"gnna_plugin again with {_build_command()}"
    )


def _build_command() -> str:
    where = _checkout_of(HERE) or "<path of the gnna_plugin checkout>"
    return f"`pip install --no-build-isolation --force-reinstall --no-deps {where}`"


def _is_command_line(argv: list[str], interpreter_argv: list[str]) -> bool:
    """Return whether this process runs `gnna` or `python -m gnna_plugin`.

    While Python looks for the module of `-m`, argv[0] is "-m".
    """
    program = argv[0] if argv else ""
    if program == "-m":
        return ("-m", "gnna_plugin") in zip(interpreter_argv[1:], interpreter_argv[2:], strict=False)
    return Path(program).name == "gnna"


def load() -> None:
    """Load the library and register its operators. Later calls do nothing.

    Raises:
        ImportError: the library is missing, or was built for another torch; or torch is missing.
        OSError: the library cannot be loaded by the system.
    """
    global _loaded
    if _loaded:
        return
    import torch

    library = HERE / LIBRARY
    if not library.is_file() or not (HERE / "_build_info.py").is_file():
        raise ImportError(missing_library_message(HERE, sys.path))
    message = mismatch_message(build_info(), torch.__version__, torch.version.cuda)
    if message:
        raise ImportError(message)
    _serve_adapters_of_checkout(HERE)
    torch.ops.load_library(str(library))
    _loaded = True


def build_info() -> dict:
    """Return what the library was built for and with.

    The keys are version, torch, torch_cuda, cuda (None for a build without CUDA), archs, reason (why the build has CUDA
    or not), compiler and openmp.
    """
    from gnna_plugin._build_info import INFO

    return dict(INFO)


def built_with_cuda() -> bool:
    return build_info()["cuda"] is not None


def mismatch_message(info: dict, torch_version: str, torch_cuda: str | None) -> str | None:
    """Return the error text for a library of another torch, or None if it matches.

    The minor release of torch and the major version of CUDA must be equal, because torch's binary interface and the
    CUDA runtime depend on them. Patch releases such as 2.13.1 keep the interface, pre-releases do not. The local part
    of the version is ignored, because the same build of torch is named 2.13.0+cu130 or 2.13.0, depending on where it
    was installed from.
    """

    def kind(version: str, cuda: str | None) -> tuple[str, str | None]:
        release = version.partition("+")[0]
        if re.fullmatch(r"\d+\.\d+\.\d+", release):
            release = release.rpartition(".")[0]
        return release, cuda.partition(".")[0] if cuda else None

    def name(version: str, cuda: str | None) -> str:
        return version if "+" in version else f"{version} (CUDA {cuda})" if cuda else f"{version} (no CUDA)"

    built, found = (info["torch"], info["torch_cuda"]), (torch_version, torch_cuda)
    if kind(*built) == kind(*found):
        return None
    return (
        f"gnna_plugin was built for torch {name(*built)}, found {name(*found)}: rebuild with {_build_command()}"
    )


def missing_library_message(here: Path, search_path: list[str]) -> str:
    """Return the error text for a package folder without a library.

    The folder `here` belongs to a damaged installation or to an unbuilt checkout. An unbuilt checkout may hide a
    working installation, which is looked for in `search_path`.
    """
    checkout = _checkout_of(here)
    if checkout is None:
        return f"gnna_plugin at {here} has no {LIBRARY}: the installation is damaged, install it again"
    build = f"`pip install --no-build-isolation -e {checkout}`"
    for entry in search_path:
        other = Path(entry or ".").resolve() / "gnna_plugin"
        if other != here and (other / LIBRARY).is_file():
            return (
                f"Python imported gnna_plugin from the checkout {checkout}, which is not built and hides the installed "
                f"one at {other}: run from another folder, or build the checkout in place with {build}"
            )
    return f"gnna_plugin in the checkout {checkout} is not built: install torch, then run {build}"


def _checkout_of(here: Path) -> Path | None:
    """Return the root of the checkout around a package folder, or None."""
    root = here.parent
    return root if (root / "setup.py").is_file() and (root / "csrc").is_dir() else None


def _serve_adapters_of_checkout(here: Path) -> None:
    """Make adapters/ of a checkout importable as gnna_plugin.adapters.

    Wheels contain the folder under that name, and editable installs map it. Only a checkout that was built in place and
    is imported from its root needs this. Adding the root to __path__ instead would also make setup.py and tests/
    importable as parts of gnna_plugin.
    """
    root = _checkout_of(here)
    if root is None:
        return
    found = importlib.util.find_spec("gnna_plugin.adapters")
    if found is not None and found.origin is not None and Path(found.origin).parent == root / "adapters":
        return  # otherwise they are missing, or those of another checkout that is installed editable

    class AdaptersOfCheckout:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
            if name != "gnna_plugin.adapters":
                return None
            spec = PathFinder.find_spec("adapters", [str(root)])
            return spec and importlib.util.spec_from_file_location(
                name, spec.origin, submodule_search_locations=list(spec.submodule_search_locations or ())
            )

    sys.meta_path.insert(0, AdaptersOfCheckout)
