"""profile() finds the graph layers of a model, their times, what they ran on, and why."""

from __future__ import annotations

import time

import pytest
import torch

pytest.importorskip("torch_geometric")

from torch_geometric.nn import GCNConv, GENConv, MessagePassing

import gnna_plugin


class Slow(torch.autograd.Function):
    """The identity, with a backward pass of 30 ms."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        time.sleep(0.03)
        return grad


class Sleeper(MessagePassing):
    """A layer whose forward pass takes 20 ms and whose backward pass takes 30 ms."""

    def forward(self, x, edge_index):
        time.sleep(0.02)
        return Slow.apply(self.propagate(edge_index, x=x))


@pytest.fixture
def graph(device):
    return torch.randn(200, 16, device=device), torch.randint(0, 200, (2, 3000), device=device)


def test_layers_calls_and_reasons(graph):
    x, edge_index = graph
    first, second = GCNConv(16, 16).to(x.device), GENConv(16, 4).to(x.device)
    gnna_plugin.enable("pyg", min_work=0)
    first(x, edge_index)  # before the profile
    with gnna_plugin.profile() as found:
        for _ in range(2):
            second(first(x, edge_index), edge_index).sum().backward()
    second(x, edge_index)  # after it
    assert [(e.layer, e.kind, e.calls) for e in found.layers] == [
        ("GCNConv(16, 16)", "GCNConv", 2),
        ("GENConv(16, 4, aggr=softmax)", "GENConv", 2),
    ]
    gcn, gen = found.layers
    assert (gcn.fused, gcn.reduced, gcn.left) == (2, 0, 0) and "width 16" in gcn.configuration
    assert gen.reduced == 4 and gen.left == 2
    assert set(found.reasons) == {"GCNConv", "GENConv"} and found.reasons["GENConv"]
    assert all(e.forward_ms > 0 and e.backward_ms > 0 for e in found.layers)
    assert sum(e.forward_ms + e.backward_ms for e in found.layers) < found.wall_ms
    assert found.as_dict()["layers"][0]["layer"] == "GCNConv(16, 16)"
    assert "GENConv" in str(found) and "GENConv" in found._repr_html_()


def test_forward_and_backward_passes_are_told_apart():
    x, edge_index = torch.randn(50, 4, requires_grad=True), torch.randint(0, 50, (2, 200))
    layer = Sleeper()
    with gnna_plugin.profile() as found:
        layer(x, edge_index).sum().backward()
        with torch.no_grad():
            layer(x, edge_index)
    (entry,) = found.layers
    assert entry.calls == 2 and entry.forward_ms >= 40 and entry.backward_ms >= 30


def test_a_model_without_graph_layers():
    with gnna_plugin.profile() as found:
        torch.nn.Linear(2, 2)(torch.randn(1, 2))
    assert found.layers == [] and "no graph layer" in str(found)


def test_results_and_hooks_are_as_without_a_profile(graph):
    x, edge_index = graph
    x.requires_grad_()
    layer = GCNConv(16, 16).to(x.device)
    gnna_plugin.enable("pyg", min_work=0)
    expected = torch.autograd.grad(layer(x, edge_index).square().sum(), [x, *layer.parameters()])
    with gnna_plugin.profile():
        for _ in range(3):
            layer(x, edge_index)  # never differentiated
        found = torch.autograd.grad(layer(x, edge_index).square().sum(), [x, *layer.parameters()])
    assert all(map(torch.equal, found, expected))
    assert not x._backward_hooks and not any(p._backward_hooks for p in layer.parameters())


def test_an_exception_in_a_layer_does_not_end_the_profile(graph):
    x, edge_index = graph
    layer = GCNConv(16, 16).to(x.device)
    with gnna_plugin.profile() as found:
        with pytest.raises(Exception, match="."):
            layer(x[:, :3], edge_index)
        layer(x, edge_index)
    assert [(e.kind, e.calls) for e in found.layers] == [("GCNConv", 1)]


def test_an_input_that_layers_share_is_not_charged_to_the_first_of_them():
    x, edge_index = torch.randn(50, 4, requires_grad=True), torch.randint(0, 50, (2, 200))
    layers = [Sleeper() for _ in range(4)]
    for layer in layers:
        layer.scale = torch.nn.Parameter(torch.ones(1))
    with gnna_plugin.profile() as found:
        sum((layer(x * layer.scale, edge_index) + layer(x, edge_index)).sum() for layer in layers).backward()
    (entry,) = found.layers
    assert entry.forward_ms + entry.backward_ms < 1.1 * found.wall_ms
    assert not x._backward_hooks


def test_hooks_of_layers_that_are_gone_are_removed(graph):
    x, edge_index = graph
    x.requires_grad_()
    with gnna_plugin.profile():
        for _ in range(5):
            GCNConv(16, 16).to(x.device)(x, edge_index).sum().backward()
    assert not x._backward_hooks


def test_a_layer_without_a_repr_is_named_by_its_class(graph):
    class Nameless(GCNConv):
        def __repr__(self):
            raise AttributeError("no repr")

    with gnna_plugin.profile() as found:
        Nameless(16, 4).to(graph[0].device)(*graph)
    assert found.layers[0].layer == "Nameless"


def test_torch_has_its_own_function_back_after_watchers_that_end_in_any_order(graph):
    original = torch.nn.Module._call_impl
    gnna_plugin.enable("pyg", min_work=0, verify=True)
    with gnna_plugin.profile() as found:
        GCNConv(16, 4).to(graph[0].device)(*graph)
        gnna_plugin.disable()
        GCNConv(16, 4).to(graph[0].device)(*graph)
    assert found.layers[0].calls == 2 and gnna_plugin.status().comparisons["GCNConv"].calls == 1
    assert torch.nn.Module._call_impl is original
