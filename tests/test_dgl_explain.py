"""explain() of a DGL model, which takes the graph first."""

from __future__ import annotations

import os

import pytest
import torch

os.environ.setdefault("DGLBACKEND", "pytorch")
pytest.importorskip("dgl")

import dgl

import gnna_plugin
from gnna_plugin import switch

pytestmark = pytest.mark.dgl


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = dgl.nn.GraphConv(32, 16, allow_zero_in_degree=True)
        self.conv2 = dgl.nn.SAGEConv(16, 8, "mean")

    def forward(self, graph, x):
        return self.conv2(graph, self.conv1(graph, x).relu())


@pytest.fixture
def graph():
    return dgl.rand_graph(3000, 30_000)


def test_the_model_is_called_with_the_graph_and_the_inputs(graph):
    model, x = Net(), torch.randn(3000, 32)
    found = gnna_plugin.explain(model, graph, x)
    assert (found.graph.nodes, found.graph.edges) == (3000, 30_000)
    # SAGEConv applies its linear map first, because that makes the features narrower.
    assert [(d["layer"], d["reduce"], d["width"]) for d in found.decisions] == [
        ("dgl.copy_lhs_sum", "sum", 16), ("dgl.copy_lhs_mean", "mean", 8),
    ]  # fmt: skip
    assert "because" in str(found) and model.training and not switch.frameworks()
    graph.ndata["feat"] = x
    assert gnna_plugin.explain(model, graph).decisions == found.decisions


def test_a_model_that_takes_the_graph_last(graph):
    class Last(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, x, graph):
            return self.net(graph, x)

    assert len(gnna_plugin.explain(Last(), graph, torch.randn(3000, 32), graph).decisions) == 2


def test_a_small_graph_is_explained_as_it_runs_in_the_long_run():
    graph = dgl.rand_graph(200, 1000)
    assert gnna_plugin.explain(Net(), graph, torch.randn(200, 32)).decisions


def test_graphs_that_cannot_be_explained(graph):
    with pytest.raises(ValueError, match="no node data 'feat' or 'x'"):
        gnna_plugin.explain(Net(), graph)
    ends = torch.tensor([0]), torch.tensor([0])
    mixed = dgl.heterograph({("a", "r", "b"): ends, ("b", "s", "a"): ends})
    with pytest.raises(ValueError, match="heterogeneous; explain takes a homogeneous one"):
        gnna_plugin.explain(Net(), mixed, torch.ones(1, 32))
    with pytest.raises(ValueError, match="is a block"):
        gnna_plugin.explain(Net(), dgl.to_block(graph), torch.ones(1, 32))
