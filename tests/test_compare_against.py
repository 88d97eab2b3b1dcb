"""`gnna compare --against`: the frameworks' best paths beside the plug-in, and the parts of the gain."""

from __future__ import annotations

import json
import math

import pytest

pytest.importorskip("torch_geometric")

from gnna_plugin.tools import cli
from gnna_plugin.tools.bench import epoch


def test_the_asked_paths_are_measured(tmp_path, capsys):
    stored = tmp_path / "r.json"
    command = ["compare", "--graph", "community:300x3000", "--against", "cached,sparse", "--json", str(stored)]
    assert cli.main([*command, "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "PyG cached" in shown and "PyG torch.sparse" in shown and "PyG EdgeIndex" not in shown
    assert all(part in shown for part in ("allocator", "memo", "fused gather", "kernel"))
    rows = json.loads(stored.read_text())["rows"]
    assert {"PyG", "PyG cached", "PyG torch.sparse", "gnna"} <= {row["peer"] for row in rows}
    assert all(row["ms"] > 0 for row in rows)


def test_the_parts_of_the_gain_multiply_to_the_whole():
    ms = {"PyG, as run": 12.0, "PyG": 6.0, epoch.MEMO: 4.0, epoch.FUSED: 2.0, "gnna": 1.0}
    parts = epoch.parts_of_gain(ms)
    assert parts == {"whole": 12.0, "allocator": 2.0, "memo": 1.5, "fused gather": 2.0, "kernel": 2.0}
    on_a_gpu = epoch.parts_of_gain({"PyG": 6.0, epoch.FUSED: 2.0, "gnna": 1.0})  # no allocator, and GIN has no memo
    assert on_a_gpu == {"whole": 6.0, "fused gather": 3.0, "kernel": 2.0}
    assert math.prod(value for name, value in on_a_gpu.items() if name != "whole") == on_a_gpu["whole"]


def test_what_cannot_be_compared_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["compare", "--graph", "community:300x3000", "--against", "fastest"])
    assert caught.value.code == 2 and "known are" in capsys.readouterr().err
    assert cli.main(["compare", "--graph", "community:300x3000", "--against", "dgl", "--framework", "dgl"]) == 2
