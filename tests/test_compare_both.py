"""compare --framework both: PyG, DGL and the plug-in in each, in one table."""

import json
import os

import pytest
from rich.console import Console

from gnna_plugin.tools import cli
from gnna_plugin.tools.compare import report, runner

ROW = dict(
    graph="community:3000x60000", model="gcn", framework="pyg", baseline_spread_ms=0.5, accelerated_spread_ms=0.1,
    baseline_peak_mib=9.0, accelerated_peak_mib=4.0, baseline_accuracy=None, accelerated_accuracy=None,
)  # fmt: skip


def test_two_frameworks_in_one_table():
    """Every arm of both, and what it is over each plain framework."""
    times = dict(baseline_ms=20.0, baseline_same_allocator_ms=16.0, accelerated_ms=5.0)
    other = dict(baseline_ms=10.0, baseline_same_allocator_ms=None, accelerated_ms=4.0, framework="dgl")
    rows = [runner.Result({**ROW, **times}), runner.Result({**ROW, **other})]
    console = Console(width=80, record=True, file=open(os.devnull, "w"))
    console.print(report.frameworks_table(rows, title="PyG and DGL"))
    text = console.export_text()
    assert "…" not in text and all(len(line) <= 80 for line in text.splitlines())
    found = {}
    for line in text.splitlines():
        for label in ("PyG accelerated", "DGL accelerated", "PyG, same alloc.", "PyG ", "DGL "):
            if label in line and "x" in line and "over" not in line and label not in found:
                found[label] = [word for word in line.split() if word.endswith("x") and word[0].isdigit()]
                break
    assert found["PyG "] == ["1.00x", "0.50x"] and found["DGL "] == ["2.00x", "1.00x"]
    assert found["PyG, same alloc."] == ["1.25x", "0.62x"]
    assert found["PyG accelerated"] == ["4.00x", "2.00x"] and found["DGL accelerated"] == ["5.00x", "2.50x"]


@pytest.mark.slow
def test_both_frameworks_are_measured(capsys, tmp_path):
    pytest.importorskip("torch_geometric")
    pytest.importorskip("dgl")
    file = tmp_path / "rows.json"
    arguments = ["--framework", "both", "--graph", "community:3000x60000", "--epochs", "4", "--json", str(file)]
    assert cli.main(["compare", *arguments]) == 0
    rows = json.loads(file.read_text())
    assert [row["framework"] for row in rows] == ["pyg", "dgl"]
    assert all(row["fused_calls"] > 0 and row["max_rel_error"] < 1e-4 for row in rows)
    text = capsys.readouterr().out
    for word in ("PyG accelerated", "DGL accelerated", "in PyG", "in DGL"):
        assert word in text
