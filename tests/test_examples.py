"""The scripts in examples/: they run without the plug-in, and `gnna run` changes no printed loss beyond rounding."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch_geometric")

import torch_geometric.typing

import gnna_plugin
from gnna_plugin.tools import demo

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("needs the source tree", allow_module_level=True)

LINE = "import gnna_plugin; gnna_plugin.enable()"
SAMPLES = torch_geometric.typing.WITH_PYG_LIB or torch_geometric.typing.WITH_TORCH_SPARSE
NEEDS_DGL = [pytest.mark.dgl, pytest.mark.skipif(importlib.util.find_spec("dgl") is None, reason="needs DGL")]
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "graphs.py")
# --strict is for scripts whose every gather is large enough to be fused.
STRICT = {"gcn_planetoid.py", "own_layer.py", "dgl_gcn.py"}


def start(*command, cwd=EXAMPLES):
    """Start Python with one thread, which two processes of these sizes do not compete for."""
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "OMP_NUM_THREADS": "1", "DGLBACKEND": "pytorch",
                   "PYTHONWARNINGS": "ignore"}  # fmt: skip
    return subprocess.Popen([sys.executable, *command], cwd=cwd, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def printed(process):
    """Return the output of a process and {what: number} of its lines "what number", once it has ended well."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out + err, {name: float(n) for name, n in re.findall(r"(epoch +\d+ +loss|accuracy) +([\d.]+)", out)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", [pytest.param(name, marks=NEEDS_DGL if name.startswith("dgl") else []) for name in SCRIPTS]
)
def test_the_plug_in_changes_no_loss(script):
    if script == "sage_minibatch.py" and not SAMPLES:
        pytest.skip("needs pyg-lib or torch-sparse")
    options = ["--report", *(["--strict"] if script in STRICT else [])]
    processes = start(script, "--epochs", "2"), start("-m", "gnna_plugin", "run", *options, script, "--epochs", "2")
    (plain, expected), (accelerated, found) = map(printed, processes)
    assert "accuracy" in expected and len(expected) >= 2 and "ms per epoch" in plain
    assert found == pytest.approx(expected, abs=2e-3)
    assert "gnna_plugin" not in plain and re.search(r"[1-9]\d* calls fused", accelerated)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_short_and_names_the_plug_in_in_one_line_that_is_off(script):
    text = (EXAMPLES / script).read_text()
    assert len(text.splitlines()) < 80
    (line,) = (line for line in text.splitlines() if "gnna_plugin" in line)
    assert line.startswith(f"# {LINE}  # ")


def test_the_line_turns_the_plug_in_on(tmp_path):
    (tmp_path / "graphs.py").write_text((EXAMPLES / "graphs.py").read_text())
    (tmp_path / "edges.csv").write_text("".join(f"{i},{(7 * i + 3) % 50}\n" for i in range(50)))
    text = (EXAMPLES / "gcn_planetoid.py").read_text().replace(f"# {LINE}", f"{LINE}; print(gnna_plugin.status())")
    (tmp_path / "edited.py").write_text(text)
    out, losses = printed(start("edited.py", "--epochs", "1", "--data", "edges.csv", cwd=tmp_path))
    assert "gnna_plugin: pyg" in out and losses


@pytest.mark.skipif(SAMPLES, reason="a sampler is installed")
def test_a_missing_sampler_is_said_in_one_sentence():
    process = start("sage_minibatch.py")
    assert process.communicate(timeout=300)[1].strip().count("\n") == 0 and process.returncode == 1


def test_the_notebook_runs_and_has_no_outputs(monkeypatch):
    """IPython is not needed: the two magics that are used are calls of the extension."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    cells = [c for c in json.loads((EXAMPLES / "quickstart.ipynb").read_text())["cells"] if c["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    magic = re.compile(r"^%(load_ext|unload_ext) gnna_plugin$", re.M)
    calls = {"load_ext": "load_ipython_extension", "unload_ext": "unload_ipython_extension"}
    names, values = {}, []
    for cell in cells:
        code = magic.sub(lambda m: f"__import__('gnna_plugin').{calls[m[1]]}(None)", "".join(cell["source"]))
        *body, last = code.splitlines()
        exec(compile("\n".join(body), "quickstart", "exec"), names)
        try:
            values.append(eval(compile(last, "quickstart", "eval"), names))  # what the notebook would show
        except SyntaxError:
            exec(compile(code, "quickstart", "exec"), names)
    status = next(value for value in values if isinstance(value, gnna_plugin.Status))
    assert "GCNConv" in status._repr_html_()
    assert any(isinstance(value, gnna_plugin.Explanation) for value in values)
    assert values[-2] < 1e-5 and not gnna_plugin.status().frameworks


def test_the_table_lists_every_example():
    table = (EXAMPLES / "README.md").read_text()
    assert all(f"| `{name}` |" in table for name in [*SCRIPTS, "quickstart.ipynb"])


def test_the_demo_shows_an_example():
    assert demo.EXAMPLE.name == "gcn_planetoid.py"
    assert f"# {demo.ADDED_LINE}" in demo.EXAMPLE.read_text()
