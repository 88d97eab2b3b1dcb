"""`gnna run`: a script behaves as under plain Python, with the plug-in on in it and in the processes it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch_geometric")


ROOT = Path(__file__).parents[1]
SCRIPT = """
import os, subprocess, sys
print(sys.argv, __name__, __file__, sys.path[0])
import torch
from torch_geometric.nn import GCNConv, SAGEConv
edges = torch.randint(0, 300, (2, 4000))
for make in (GCNConv, SAGEConv):
    make(64, 64)(torch.randn(300, 64), edges)
if sys.argv[1] == "raise":
    raise KeyError("boom")
sys.exit(7)
"""


def python(*arguments, cwd, **environment):
    """Run Python and return (exit status, stdout, stderr)."""
    paths = os.pathsep.join(filter(None, [str(ROOT), environment.pop("PYTHONPATH", "")]))
    env = {**os.environ, "PYTHONPATH": paths, "GNNA_MIN_WORK": "0", "PYTHONWARNINGS": "ignore", **environment}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    return done.returncode, done.stdout, done.stderr


def run(*arguments, cwd, **environment):
    return python("-m", "gnna_plugin", "run", *arguments, cwd=cwd, **environment)


@pytest.fixture
def script(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


def test_arguments_exit_status_and_output_are_the_scripts(script):
    expected = python("train.py", "--report", "-x", "3", cwd=script)
    assert expected[0] == 7
    assert run("train.py", "--report", "-x", "3", cwd=script) == expected


def test_tracebacks_are_the_scripts(script):
    expected = python("train.py", "raise", cwd=script)
    assert expected[0] == 1 and "boom" in expected[2]
    assert run("train.py", "raise", cwd=script) == expected


def test_report_and_choice_of_layers(script):
    status, _, err = run("--report", "--skip", "GCNConv", "-m", "train", "go", cwd=script)
    assert status == 7
    assert "SAGEConv: 1 call fused" in err and "GCNConv: 0 calls fused" in err
    _, _, err = run("--report", "-c", "import torch_geometric", cwd=script)
    assert "no layer of the script reached the plug-in" in err


def test_processes_that_the_script_starts_run_on_the_plug_in(script):
    code = "import subprocess, sys; subprocess.run([sys.executable, 'train.py', 'go'])"
    _, _, err = run("--report", "-c", code, cwd=script)
    assert "GCNConv: 1 call fused" in err


def test_scripts_without_a_framework_import_nothing_and_keep_their_startup(script):
    own = script / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import sys; sys.mine = True")
    code = "import sys; print(sys.mine, 'torch' in sys.modules, [p for p in sys.path if p.endswith('startup')])"
    status, out, err = run("-c", code, cwd=script, PYTHONPATH=str(own))
    assert (status, out, err) == (0, "True False []\n", "")


def test_requests_that_cannot_be_met(script):
    for arguments in ((), ("missing.py",), ("-m",), ("-c",)):
        status, _, err = run(*arguments, cwd=script)
        assert status == 2 and err.startswith("gnna: ") and err.count("\n") == 1


TRAINING = """
import torch
from torch_geometric.nn import GCNConv
layer = GCNConv(16, 8)
for _ in range(3):
    layer(torch.randn(100, 16), torch.randint(0, 100, (2, 900))).sum().backward()
"""


def test_profile_and_verify_print_at_the_end(tmp_path):
    status, out, err = run("--profile", "-c", TRAINING, cwd=tmp_path)
    assert (status, out) == (0, "") and "GCNConv(16, 8)" in err and "ms" in err
    status, out, err = run("--verify", "-c", TRAINING, cwd=tmp_path)
    assert (status, out) == (0, "") and "GCNConv: 3 calls compared" in err
    assert run("--verify", "--profile", "-c", TRAINING, cwd=tmp_path)[0] == 2
