"""explain(): decisions with their reasons, beside the graph's facts and the paper's formulas; it leaves no trace."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("torch_geometric")

from torch_geometric.nn import EdgeConv, GCNConv, GINConv

import gnna_plugin
from gnna_plugin import switch
from gnna_plugin.tools import cli


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gcn = GCNConv(32, 16)
        self.gin = GINConv(torch.nn.Linear(16, 8))
        self.edge = EdgeConv(torch.nn.Sequential(torch.nn.Linear(16, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4)))

    def forward(self, x, edge_index):
        return self.edge(self.gin(self.gcn(x, edge_index), edge_index), edge_index)


@pytest.fixture
def data():
    return SimpleNamespace(x=torch.randn(3000, 32), edge_index=torch.randint(0, 3000, (2, 30_000)))


def test_every_aggregation_is_explained(data):
    model = Net()
    found = gnna_plugin.explain(model, data)
    assert [(d["layer"], d["width"], d["weighted"]) for d in found.decisions] == [
        ("GCNConv", 16, True),
        ("GINConv", 16, False),
    ]
    text = str(found)
    for words in (
        "3,000 nodes, 30,000 edges",
        "GCNConv: sum of 16 x float32",
        "GINConv: sum of 16 x float32 over 33,000 edges (3,000 more than the graph has",
        "because ",
        "(min_work)",
        "ngs ",
        "sqrt(AES) = ",
        "EdgeConv: 1 call not fused: the message uses `linear`",
    ):
        assert words in text, words
    assert json.loads(json.dumps(found.as_dict()))["decisions"][0]["paper"]["dw"] == 16
    assert model.training and not switch.frameworks()


def test_it_counts_for_itself_alone(data):
    gnna_plugin.enable("pyg", min_work=0, skip=["GINConv"])
    model = Net()
    model(data.x, data.edge_index)
    before = gnna_plugin.status().as_dict()["layers"]
    found = gnna_plugin.explain(model, data)
    assert "GINConv: 1 call not fused: excluded by" in str(found)
    assert gnna_plugin.status().as_dict()["layers"] == before and switch.frameworks() == ["pyg"]


def test_small_work_is_explained_too(data):
    data.x, data.edge_index = data.x[:10], data.edge_index[:, :20] % 10
    text = str(gnna_plugin.explain(Net(), data))
    assert "no aggregation was fused" in text and "min_work" in text


def test_data_without_a_graph():
    with pytest.raises(ValueError, match="SimpleNamespace without an edge_index"):
        gnna_plugin.explain(Net(), SimpleNamespace(x=torch.ones(2, 32)))


def test_a_model_that_is_no_module(data):
    with pytest.raises(TypeError, match="model is of type function; explain takes a torch.nn.Module"):
        gnna_plugin.explain(lambda x, edge_index: x, data)


def test_command_line(tmp_path, capsys):
    file = tmp_path / "why.json"
    assert cli.main(["explain", "--model", "gin", "--graph", "community:3000x30000", "--json", str(file)]) == 0
    assert "GINConv: sum of 64 x float32" in capsys.readouterr().out
    assert json.loads(file.read_text())["graph"]["nodes"] == 3000


def test_modules_keep_their_own_modes(data):
    """A frozen BatchNorm of a model in training stays frozen."""
    model = torch.nn.ModuleDict({"conv": Net(), "frozen": torch.nn.BatchNorm1d(4)}).train()
    model["frozen"].eval()
    model.forward = model["conv"].forward
    gnna_plugin.explain(model, data)
    assert model.training and model["conv"].training and not model["frozen"].training


def test_an_edge_index_of_pyg_is_explained(data):
    from torch_geometric import EdgeIndex

    data.edge_index = EdgeIndex(data.edge_index, sparse_size=(3000, 3000))
    assert gnna_plugin.explain(Net(), data).decisions
