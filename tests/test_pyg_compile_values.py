"""Compiled layers use the edges, weights and messages that PyG would use, whoever writes to them and when."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers
from compiling import MARKS, assert_same
from torch_geometric.nn import GATConv, GCNConv, MessagePassing, SAGEConv

import gnna_plugin

pytestmark = MARKS


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_indices_made_in_compiled_code_never_meet_the_plan_of_others(device, backend):
    """Compiled code writes results to the memory of earlier ones, without a new version."""

    class Shifted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = SAGEConv(layers.WIDTH, layers.WIDTH)
            self.loops = GATConv(layers.WIDTH, layers.WIDTH)

        def forward(self, x, edge_index, shift):
            for step in range(1, 4):
                moved = (edge_index + shift * step) % layers.NODES
                x = self.conv(x, moved) + self.loops(x, moved.flip(0))
            return x

    x, edge_index, _ = layers.graph(device)
    model = Shifted().double().to(device)
    compiled = torch.compile(model, backend=backend)
    shifts = [torch.tensor(shift, device=device) for shift in (0, 3, 1, 0, 7)]
    expected = [model(x, edge_index, shift) for shift in shifts]
    gnna_plugin.enable(min_work=0)
    for grad in (False, True):  # without gradients memory is reused earlier
        with torch.set_grad_enabled(grad):
            for shift, result in zip(shifts, expected, strict=True):
                torch.testing.assert_close(compiled(x, edge_index, shift), result)


def test_edges_that_the_caller_writes_to_between_calls(device):
    x, edge_index, _ = layers.graph(device)
    layer = GATConv(layers.WIDTH, 8).double().to(device)
    gnna_plugin.enable(min_work=0)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for _ in range(3):
        with gnna_plugin.disabled():
            expected = layer(x, edge_index)
        torch.testing.assert_close(compiled(x, edge_index), expected)
        edge_index[:, ::3] = (edge_index[:, ::3] + 1) % layers.NODES


class WritesEdges(torch.nn.Module):
    """Writes to its edges between two layers."""

    def __init__(self):
        super().__init__()
        self.conv = SAGEConv(layers.WIDTH, layers.WIDTH)

    def forward(self, x, edge_index):
        x = self.conv(x, edge_index)
        edge_index[0].add_(1).remainder_(layers.NODES)
        return self.conv(x, edge_index)


class ReturnsEdges(torch.nn.Module):
    """Returns edges that are computed from its input."""

    def __init__(self):
        super().__init__()
        self.conv = GCNConv(layers.WIDTH, layers.WIDTH)

    def forward(self, x, edge_index):
        from torch_geometric.nn.conv import gcn_conv

        edges, weight = gcn_conv.gcn_norm(edge_index, None, x.size(0), dtype=x.dtype)
        return self.conv(x, edge_index), edges, weight.view(-1, 1)


def test_edges_that_compiled_code_writes_to(device):
    x, edge_index, _ = layers.graph(device)
    model = WritesEdges().double().to(device)
    before, after = edge_index.clone(), edge_index.clone()
    expected = model(x, after)
    gnna_plugin.enable(min_work=0)
    compiled = torch.compile(model, backend="aot_eager")
    for _ in range(3):
        given = before.clone()
        torch.testing.assert_close(compiled(x, given), expected)
        assert torch.equal(given, after)


def test_writes_to_returned_edges_do_not_reach_other_calls(device):
    x, edge_index, _ = layers.graph(device)
    model = ReturnsEdges().double().to(device)
    expected = [t.clone() for t in model(x, edge_index)]
    gnna_plugin.enable(min_work=0)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    results = [compiled(x, edge_index) for _ in range(3)]
    for found in results:
        assert_same([found[0], found[2]], [expected[0], expected[2]])
        assert torch.equal(found[1], expected[1])
        found[1].zero_()
        found[2].zero_()
    assert_same([compiled(x, edge_index)[0]], [expected[0]])


def _scaled(messages, weight):
    return messages * weight.view(-1, 1)


def _weight_written_before(messages, weight):
    weight = weight.clone()
    weight[3] = 0
    return messages * weight.view(-1, 1)


def _weight_written_after(messages, weight):
    with torch.no_grad():
        factor = weight.clone().view(-1, 1)
    scaled = messages.detach() * factor
    factor.zero_()
    return scaled + messages * weight.view(-1, 1)


def _written_messages(messages, weight):
    messages = messages * weight.view(-1, 1)
    messages[3] = 0
    return messages


def _without_gradient(messages, weight):
    with torch.no_grad():
        part = messages * weight.view(-1, 1)
    return part * weight.view(-1, 1)


def _regrouped(messages, weight):
    messages = messages.view(-1, 2, 4) * weight.view(-1, 1, 1)
    return (messages * weight.view(-1, 1, 1)).reshape(-1, 8)


def _by_feature(messages, weight):
    return messages * weight.view(-1, 1).expand(-1, 8).cos()


def _row_of_numbers(messages, weight):
    return messages * torch.arange(8, dtype=messages.dtype, device=messages.device) * weight.view(-1, 1)


def _matrix_of_one_row(messages, weight):
    return messages * torch.arange(8, dtype=messages.dtype, device=messages.device).view(1, 8)


def _two_kinds_of_weights(messages, weight):
    heads = torch.stack([weight, weight.cos()], dim=1)
    return (messages.view(-1, 2, 4) * weight.view(-1, 1, 1) * heads.view(-1, 2, 1)).view(-1, 8)


@pytest.mark.parametrize("aggr", ["sum", "mean", "max"])
@pytest.mark.parametrize(
    "message",
    [
        _scaled,
        _weight_written_before,
        _weight_written_after,
        _written_messages,
        _without_gradient,
        _regrouped,
        _by_feature,
        _row_of_numbers,
        _matrix_of_one_row,
        _two_kinds_of_weights,
    ],
)
def test_messages_of_every_form(device, message, aggr):
    x, edge_index, edge = layers.graph(device)
    layer = layers.build((lambda: layers.Layer(message, aggr),), device)
    expected = layers.outputs_and_gradients(layer, x, edge_index, edge["weight"])
    gnna_plugin.enable(min_work=0)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        assert_same(layers.outputs_and_gradients(compiled, x, edge_index, edge["weight"]), expected)


class WritesFeatures(MessagePassing):
    """Writes to the features between their gather and the reduction."""

    def forward(self, x, edge_index):
        x = x * 1
        self.features = [x]
        return self.propagate(edge_index, x=x)

    def message(self, x_j):
        self.features[0].mul_(2)
        return x_j


def test_messages_keep_the_values_of_the_time_of_the_gather(device):
    x, edge_index, _ = layers.graph(device)
    layer = WritesFeatures()
    expected = layer(x, edge_index)
    gnna_plugin.enable(min_work=0)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager")(x, edge_index), expected)
