"""GINConv's (1 + eps) * x folded into the aggregation as a self-loop: the same sums and gradients as PyG's. It is
folded only if eps is a constant 0.
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_geometric")

from torch_geometric.nn import GINConv, MaxAggregation, SumAggregation

import gnna_plugin
from gnna_plugin import report, surroundings
from gnna_plugin.adapters.pyg.gin import _has_constant_zero

EDGES, NODES = 100, 20


@pytest.fixture
def graph(device):
    return torch.randn(NODES, 6, dtype=torch.float64, device=device), torch.randint(0, NODES, (2, EDGES), device=device)


def gin(device, **options):
    return GINConv(torch.nn.Linear(6, 4), **options).to(device, torch.float64)


def summed_edges(layer, *inputs):
    """Compare the layer's results with and without the plug-in, and return the edges of each aggregation."""
    edges = []
    with gnna_plugin.disabled():
        expected = layer(*inputs)
    gnna_plugin.enable("pyg", min_work=0)
    with report.watched_by(lambda layer, x, weight, src, *_: edges.append(src.numel())):
        torch.testing.assert_close(layer(*inputs), expected)
    return edges


def test_the_own_term_is_folded_as_a_self_loop(graph, device):
    x, edge_index = graph
    layer = gin(device)
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(layer(leaf, edge_index).square().sum(), [leaf, *layer.parameters()])
    assert summed_edges(layer, leaf, edge_index) == [EDGES + NODES]
    found = torch.autograd.grad(layer(leaf, edge_index).square().sum(), [leaf, *layer.parameters()])
    torch.testing.assert_close(found, expected)
    misses = gnna_plugin.status().plan_misses
    layer(leaf, edge_index).sum().backward()
    assert gnna_plugin.status().plan_misses == misses
    assert torch.autograd.gradgradcheck(lambda x: layer(x, edge_index), leaf, fast_mode=True)


@pytest.mark.parametrize("options", [{"eps": 0.5}, {"train_eps": True}, {"aggr": "max"}, {"aggr": "mean"}], ids=str)
def test_other_options_are_not_folded(options, graph, device):
    edges = summed_edges(gin(device, **options), *graph)
    assert edges and set(edges) == {EDGES}


def test_a_subclass_is_not_folded(graph, device):
    class Scaled(GINConv):
        def message(self, x_j):
            return 2 * x_j

    layer = Scaled(torch.nn.Linear(6, 4)).to(device, torch.float64)
    assert EDGES + NODES not in summed_edges(layer, *graph)


def test_a_call_on_two_sets_of_nodes_is_not_folded(graph, device):
    x, edge_index = graph
    assert EDGES + NODES not in summed_edges(gin(device), (x, x.clone()), edge_index)
    assert EDGES + NODES not in summed_edges(gin(device), x, edge_index, (NODES, NODES))


def test_a_change_of_eps_is_seen(graph, device):
    layer = gin(device)
    assert summed_edges(layer, *graph) == [EDGES + NODES]
    with torch.no_grad():
        layer.eps.fill_(0.25)
    assert summed_edges(layer, *graph) == [EDGES]
    layer.load_state_dict({**layer.state_dict(), "eps": torch.zeros(1)})
    assert summed_edges(layer, *graph) == [EDGES + NODES]


class CountsReads(torch.Tensor):
    """A tensor that claims to be on a GPU, where reading a value synchronises, and counts such reads."""

    is_cuda, reads = True, 0

    def item(self):
        CountsReads.reads += 1
        return super().item()


def test_eps_on_a_gpu_is_read_once_for_each_change(monkeypatch):
    monkeypatch.setattr(surroundings, "capturing", lambda _: False)  # a CPU build of torch cannot answer this
    layer = gin("cpu")
    layer.eps = torch.Tensor._make_subclass(CountsReads, layer.eps)
    for value in (0.0, 0.25, 0.0):
        with torch.no_grad():
            layer.eps.fill_(value)
        before = CountsReads.reads
        assert {_has_constant_zero(layer) for _ in range(3)} == {value == 0}
        assert CountsReads.reads == before + 1


def test_hooks_see_the_user_s_edges(graph, device):
    layer, seen = gin(device), []
    layer.register_propagate_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].size(1)))
    assert summed_edges(layer, *graph) == [EDGES] and set(seen) == {EDGES}


def test_disable_restores_forward():
    original = GINConv.forward
    gnna_plugin.enable("pyg")
    assert GINConv.forward is not original
    gnna_plugin.disable()
    assert GINConv.forward is original


def half(module, inputs, out):
    return out / 2


CHANGES = {
    "hook on aggregate": lambda layer: layer.register_aggregate_forward_hook(half),
    "hook on aggr_module": lambda layer: layer.aggr_module.register_forward_hook(half),
    "aggregate of the instance": lambda layer: setattr(layer, "aggregate", halved(layer.aggregate)),
    "update of the instance": lambda layer: setattr(layer, "update", lambda out: out / 2),
    "another aggr_module": lambda layer: setattr(layer, "aggr_module", MaxAggregation()),
    "aggr_module's own forward": lambda layer: setattr(layer.aggr_module, "forward", halved(layer.aggr_module.forward)),
}


def halved(function):
    return lambda *args, **kwargs: function(*args, **kwargs) / 2


@pytest.mark.parametrize("change", CHANGES)
def test_a_step_that_a_user_changed_is_not_skipped(change, graph, device):
    layer = gin(device)
    CHANGES[change](layer)
    assert EDGES + NODES not in summed_edges(layer, *graph)


def test_a_hook_on_all_modules_is_not_skipped(graph, device):
    layer = gin(device)
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, out: out / 2 if isinstance(module, SumAggregation) else None
    )
    try:
        assert EDGES + NODES not in summed_edges(layer, *graph)
    finally:
        handle.remove()
