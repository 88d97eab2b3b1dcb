"""Small graphs fall back to PyG until they have been used several times. Results are the same before and after."""

from __future__ import annotations

import itertools

import pytest
import torch

pytest.importorskip("torch_geometric")

from torch_geometric.nn import EdgeConv, GATConv, GCNConv, GINConv, MessagePassing, SAGEConv, SimpleConv

import gnna_plugin

WIDTH, NODES, EDGES = 64, 100, 600  # just above the default min_work
LAYERS = {
    "GIN": lambda: GINConv(torch.nn.Linear(WIDTH, 8)),
    "GCN": lambda: GCNConv(WIDTH, 64),
    "GAT": lambda: GATConv(WIDTH, 16, heads=4),
    "Edge": lambda: EdgeConv(torch.nn.Linear(2 * WIDTH, 64)),
    "mean": lambda: SAGEConv(WIDTH, 8, aggr="mean"),
    "max": lambda: SimpleConv("max"),
}


_seeds = itertools.count()


def graph(edges=EDGES):
    """Return (x, edge_index) of a graph that no other test uses, because uses are counted by the graph's content."""
    generator = torch.Generator().manual_seed(next(_seeds))
    return torch.randn(NODES, WIDTH, requires_grad=True), torch.randint(0, NODES, (2, edges), generator=generator)


def outcome(layer, x, edge_index):
    out = layer(x, edge_index)
    (grad,) = torch.autograd.grad(out.square().sum(), x)
    return out.detach(), grad


@pytest.mark.parametrize("name", LAYERS)
def test_first_and_later_calls_agree_with_pyg(name):
    layer, (x, edge_index) = LAYERS[name](), graph()
    expected = outcome(layer, x, edge_index)
    gnna_plugin.enable("pyg")
    for _ in range(14):
        torch.testing.assert_close(outcome(layer, x, edge_index), expected, rtol=1e-4, atol=1e-4)


def fused(layer):
    return gnna_plugin.status().layers[type(layer).__name__].fused


def test_graphs_that_are_used_once_have_no_plan():
    gnna_plugin.enable("pyg")
    layer = GINConv(torch.nn.Linear(WIDTH, 8))
    for _ in range(20):
        layer(*graph())
    status = gnna_plugin.status()
    assert status.plans == 0 and fused(layer) == 0
    (reason,) = status.layers["GINConv"].framework
    assert "first uses" in reason and status.layers["GINConv"].framework[reason] == 20


def test_a_graph_that_is_used_repeatedly_is_fused():
    gnna_plugin.enable("pyg")
    layer, (x, edge_index) = SimpleConv("sum"), graph()
    for _ in range(20):
        layer(x, edge_index)
    assert fused(layer) > 5 and gnna_plugin.status().plans == 1


def test_a_larger_graph_and_an_explicit_min_work_are_fused_at_once():
    gnna_plugin.enable("pyg")
    layer = SimpleConv("sum")
    layer(*graph(20_000))
    assert fused(layer) == 1
    gnna_plugin.enable("pyg", min_work=0)
    layer(*graph())
    assert fused(layer) == 2


def test_errors_of_a_small_graph_are_pygs():
    layer, (x, edge_index) = SimpleConv("sum"), graph()
    for position, value in ((0, NODES), (1, NODES), (0, -1)):
        broken = edge_index.clone()
        broken[position, 3] = value
        errors = []
        for on in (False, True):
            (gnna_plugin.enable if on else gnna_plugin.disable)()
            with pytest.raises((IndexError, ValueError, RuntimeError)) as caught:
                layer(x, broken)
            errors.append((caught.type, str(caught.value)))
        assert errors[0] == errors[1]


def test_a_layer_inside_a_message_is_not_mistaken_for_the_outer_one():
    inner = SimpleConv("sum")

    class Outer(MessagePassing):
        def forward(self, x, edge_index):
            self.edges = edge_index
            return self.propagate(edge_index, x=x)

        def message(self, x_j):
            return x_j + inner(x_j, self.edges)

    x, edge_index = graph(EDGES)
    expected = Outer()(x, edge_index)
    gnna_plugin.enable("pyg")
    for _ in range(3):
        torch.testing.assert_close(Outer()(x, edge_index), expected)
