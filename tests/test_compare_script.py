"""`gnna compare SCRIPT`: the script runs unchanged without and with the plug-in, and both are measured."""

from __future__ import annotations

import csv
import json
import math
import time

import pytest

pytest.importorskip("torch_geometric")

from gnna_plugin.tools import cli
from gnna_plugin.tools.script.arms import Arm, last_result, loss_gap
from gnna_plugin.tools.script.show import first_difference

SCRIPT = """
import sys
import torch
from torch_geometric.nn import GCNConv

edges = torch.randint(0, 300, (2, 4000))
model = GCNConv(64, 8)
optimizer = torch.optim.Adam(model.parameters())
x = torch.randn(300, 64)
for step in range(int(sys.argv[1])):
    optimizer.zero_grad()
    loss = model(x, edges).square().mean()
    loss.backward()
    optimizer.step()
print("accuracy", 0.5)
print("done")
if "fail" in sys.argv:
    raise KeyError("boom")
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNA_MIN_WORK", "0")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


def test_both_runs_are_measured_and_written(script, capsys):
    files = [str(script / name) for name in ("r.json", "r.csv")]
    options = ["--allocator", "--json", files[0], "--csv", files[1]]
    assert cli.main(["compare", *options, str(script / "train.py"), "7"]) == 0
    shown = capsys.readouterr().out
    assert "accuracy 0.5" in shown and "GCNConv: 7 calls fused" in shown
    found = json.loads((script / "r.json").read_text())
    assert [row["arm"] for row in found["rows"]] == ["baseline", "allocator", "accelerated"]
    for row in found["rows"]:
        assert row["steps"] == 7 and row["step_ms"] > 0 and row["seconds"] > 0 and math.isfinite(row["last_loss"])
        assert row["last_line"] == "accuracy 0.5"
        assert len(found["step_ms"][row["arm"]][0]) == 6
    plain, ours = (found["losses"][arm][0] for arm in ("baseline", "accelerated"))
    assert plain == pytest.approx(ours, rel=1e-5) and len(set(plain)) == 7
    assert found["status"]["layers"]["GCNConv"]["fused"] == 7
    rows = list(csv.DictReader((script / "r.csv").open()))
    assert float(rows[-1]["speedup"]) == pytest.approx(found["rows"][-1]["speedup"])


def test_a_page_of_its_own(script, capsys):
    pytest.importorskip("matplotlib")
    page = script / "r.html"
    assert cli.main(["compare", "--html", str(page), str(script / "train.py"), "4"]) == 0
    text = page.read_text()
    assert text.count("<svg") == 2 and "GCNConv" in text and "http" not in text.split("<svg")[0]


def test_code_without_steps_is_compared_by_its_total_time(script, capsys):
    assert cli.main(["compare", "-c", "import torch_geometric; print(42)"]) == 0
    assert "no step" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["train.py", "2", "fail"], 1, "boom"),
        (["-c", "print(1)"], 1, "nothing to compare"),
        (["missing.py"], 2, "missing.py"),
        ([], 2, "--graph"),
        (["--graph", "community:30x90", "--html", "r.html"], 2, "--html"),
        (["--epochs", "3", "train.py", "2"], 2, "--epochs"),
        (["--against", "cached", "train.py", "2"], 2, "--against"),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_sentence(script, capsys, monkeypatch, arguments, status, text):
    monkeypatch.chdir(script)
    assert cli.main(["compare", *arguments]) == status
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "expected", "gap"),
    [
        ([1.0, 0.5], [1.0, 0.5], (0.0, 1)),
        ([1.0, 0.6], [1.0, 0.5], (pytest.approx(0.1), 1)),
        ([1.0, None], [1.0, None], (0.0, 0)),
        ([1.0, math.nan], [1.0, math.nan], (0.0, 1)),
        ([1.0, math.nan], [1.0, 0.5], (math.inf, 1)),
        ([1.0], [1.0, 0.5], (0.0, 0)),
        ([None], [None], None),
        ([], [], None),
    ],
)
def test_loss_gap(found, expected, gap):
    assert loss_gap(found, expected) == gap


def test_the_first_different_step():
    assert first_difference([1.0, 0.5, 0.3], [1.0, 0.5, 0.2]) == 2


def test_the_first_steps_are_not_part_of_the_median():
    assert Arm("baseline", step_ms=[[90.0] * 5 + [10.0] * 15]).step_time() == (10.0, 0.0)
    assert Arm("baseline", step_ms=[[90.0, 10.0, 10.0]]).step_time() == (10.0, 0.0)
    assert Arm("baseline", step_ms=[[90.0]]).step_time() == (90.0, 0.0)
    assert Arm("baseline", step_ms=[[]]).step_time() is None


def compared(folder, name, text, *options, arguments=()):
    """Compare a script, and return what is stored."""
    (folder / name).write_text(text)
    assert cli.main(["compare", "--json", str(folder / "r.json"), *options, str(folder / name), *arguments]) == 0
    return json.loads((folder / "r.json").read_text())


@pytest.mark.parametrize("place", ["import torch\n", "optimizer ="])
def test_a_script_that_enables_the_plug_in_has_a_plain_baseline(script, place, capfd):
    """enable() before the import of the framework, and after it."""
    line = "import gnna_plugin; gnna_plugin.enable('pyg', strict=True)\n"
    found = compared(script, "own.py", SCRIPT.replace(place, line + place, 1), arguments=["4"])
    assert found["status"]["layers"]["GCNConv"]["fused"] == 4
    assert "partially initialized" not in capfd.readouterr().err
    plain, ours = (found["losses"][arm][0] for arm in ("baseline", "accelerated"))
    assert plain == pytest.approx(ours, rel=1e-5)


def test_a_run_can_be_ended_after_some_seconds(script):
    text = SCRIPT.replace("    optimizer.step()", "    optimizer.step(); time.sleep(0.3)")
    text = text.replace("import sys", "import sys, time")
    found = compared(script, "long.py", text, "--seconds", "1", arguments=["1000"])
    assert all(3 <= row["steps"] <= 7 for row in found["rows"])


def test_the_loss_is_not_that_of_the_gradient_scaler(script):
    text = SCRIPT.replace("    loss.backward()", "    scaler.scale(loss).backward(); print('loss', loss.item())")
    text = text.replace("model =", "scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)\nmodel =")
    found = compared(script, "scaled.py", text.replace('print("accuracy", 0.5)', ""), arguments=["2"])
    assert found["rows"][0]["last_loss"] == pytest.approx(float(found["rows"][0]["last_line"].split()[1]))


def test_processes_that_the_script_leaves_behind_are_not_waited_for(script):
    text = SCRIPT + "import subprocess; subprocess.Popen(['sleep', '60'])\n"
    start = time.perf_counter()
    compared(script, "behind.py", text, arguments=["2"])
    assert time.perf_counter() - start < 50


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("epoch 1\ntest 0.81\nMedian time per epoch: 0.1 s\n", "test 0.81"),
        ("took 3 s\nno number\n", "took 3 s"),
        ("a 100:100 b\\\n", "a 100:100 b\\"),
        ("", ""),
    ],
)
def test_the_last_result_is_no_time(text, line):
    assert last_result(text) == line
