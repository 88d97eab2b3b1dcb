"""A DGL that cannot be imported is reported in one clear sentence. Stub packages stand for releases that are not
installed.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

MISSING_PACKAGE = "import no_such_torchdata"
MISSING_LIBRARY = (
    "raise FileNotFoundError('Cannot find DGL C++ graphbolt library at /x/libgraphbolt.so\\nand a second line')"
)


def enable(folder, *arguments):
    """Call enable(*arguments) in a process where `import dgl` finds the stub in `folder`.

    Returns:
        The lines of its output: the ImportError, warnings, and the frameworks that are on.
    """
    code = f"""
import warnings, gnna_plugin
from gnna_plugin import switch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        gnna_plugin.enable(*{arguments!r})
    except ImportError as error:
        print("ImportError:", error)
for warning in caught:
    print(warning.category.__name__ + ":", warning.message)
print("on for", switch.frameworks())
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *(entry or os.getcwd() for entry in sys.path)])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def stub(folder, graphbolt=None, main=""):
    """Write a package dgl to `folder` and return the folder.

    Args:
        graphbolt: code of dgl.graphbolt.base, which `import dgl` then runs.
        main: code of dgl/__init__.py.
    """
    package = folder / "dgl"
    package.mkdir()
    lines = ['__version__ = "2.1.0"', main]
    if graphbolt is not None:
        lines.append("from . import distributed")
        (package / "distributed.py").write_text("from . import graphbolt\n")
        (package / "graphbolt").mkdir()
        (package / "graphbolt" / "__init__.py").write_text("from .base import *\n")
        (package / "graphbolt" / "base.py").write_text(f"{graphbolt}\n")
    (package / "__init__.py").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize(
    ("graphbolt", "reason"),
    [
        (MISSING_PACKAGE, "No module named 'no_such_torchdata'"),
        (MISSING_LIBRARY, "Cannot find DGL C++ graphbolt library at /x/libgraphbolt.so"),
    ],
)
def test_a_graphbolt_that_does_not_load_is_named_with_its_reason(tmp_path, graphbolt, reason):
    folder = stub(tmp_path, graphbolt)
    raised, state = enable(folder, "dgl")
    assert raised.startswith("ImportError: dgl is installed but cannot be imported (DGL 2.1.0 loads GraphBolt, which")
    assert raised.endswith(f"{reason}; install DGL 1.1.3, which does not load it), so gnna_plugin stays off for it")
    assert state == "on for []"


def test_any_other_import_error_is_reported_with_its_own_words(tmp_path):
    raised, state = enable(stub(tmp_path, main="raise OSError('libdgl.so: cannot open')"), "dgl")
    assert raised == (
        "ImportError: dgl is installed but cannot be imported (libdgl.so: cannot open), so gnna_plugin stays off for it"
    )
    assert state == "on for []"


def test_enable_without_arguments_warns_and_accelerates_the_other_framework(tmp_path):
    pytest.importorskip("torch_geometric")
    lines = enable(stub(tmp_path, MISSING_PACKAGE))
    assert any(line.startswith("UserWarning: dgl is installed but cannot be imported") for line in lines)
    assert lines[-1] == "on for ['pyg']"


def test_a_dgl_whose_functions_differ_is_left_alone(tmp_path):
    """The stub stands for a release in which the functions that are replaced have other signatures."""
    folder = stub(tmp_path, main="from . import ops, base\nclass DGLError(Exception): pass")
    package = folder / "dgl"
    for room in ("backend", "backend/pytorch", "ops"):
        (package / room).mkdir()
        (package / room / "__init__.py").write_text("")
    (package / "backend/pytorch/sparse.py").write_text("def _gspmm(graph, op): pass\n")
    (package / "ops" / "spmm.py").write_text("def gspmm(g): pass\n")
    (package / "heterograph_index.py").write_text("class HeteroGraphIndex: pass\n")
    (package / "base.py").write_text("def is_all(value): return True\n")
    warning, state = enable(folder, "dgl")
    assert warning.startswith("UserWarning: gnna_plugin stays off for DGL 2.1.0: ") and "_gspmm takes" in warning
    assert state == "on for []"
