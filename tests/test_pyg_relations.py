"""RGCNConv selects the edges of each relation once per graph."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers
from torch_geometric.nn import RGCNConv
from torch_geometric.nn.conv import rgcn_conv

import gnna_plugin

RELATIONS = 4
VARIANTS = {
    "plain": {},
    "bases": {"num_bases": 2},
    "blocks": {"num_blocks": 4},
    "sum": {"aggr": "sum"},
    "max": {"aggr": "max"},
}


def relational(device="cpu"):
    x, edge_index, _ = layers.graph(device)
    edge_type = torch.randint(0, RELATIONS - 1, (layers.EDGES,), generator=torch.Generator().manual_seed(2))
    return x, edge_index, edge_type.to(device)  # the last relation has no edges


def built(device="cpu", **options):
    return layers.build((lambda: RGCNConv(layers.WIDTH, 8, RELATIONS, **options),), device)


def outputs_and_gradients(layer, x, edge_index, edge_type):
    x = x.clone().requires_grad_()
    layer.zero_grad()
    out = layer(x, edge_index, edge_type)
    out.square().sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_and_gradients_are_pygs_and_no_plan_is_built_twice(device, name):
    x, edge_index, edge_type = relational(device)
    layer = built(device, **VARIANTS[name])
    expected = outputs_and_gradients(layer, x, edge_index, edge_type)
    gnna_plugin.enable(min_work=0)
    for _ in range(2):
        for a, b in zip(outputs_and_gradients(layer, x, edge_index, edge_type), expected, strict=True):
            torch.testing.assert_close(a, b)
    built_before = gnna_plugin.status().plan_misses
    outputs_and_gradients(layer, x, edge_index, edge_type)
    assert gnna_plugin.status().plan_misses == built_before
    assert gnna_plugin.status().layers["RGCNConv"].fused > 0


@pytest.mark.parametrize("changed", ["edge_index", "edge_type"])
def test_changes_of_the_graph_are_seen(device, changed):
    x, edge_index, edge_type = relational(device)
    layer = built(device)
    gnna_plugin.enable(min_work=0)
    for _ in range(2):
        layer(x, edge_index, edge_type)
    tensor = edge_index if changed == "edge_index" else edge_type
    tensor.copy_(tensor.flip(-1))
    found = layer(x, edge_index, edge_type)
    gnna_plugin.disable()
    torch.testing.assert_close(found, layer(x, edge_index, edge_type))


def test_two_edge_types_of_one_graph_and_fresh_graphs(device):
    x, edge_index, edge_type = relational(device)
    layer, other = built(device), (edge_type + 1) % RELATIONS
    graphs = [(edge_index, edge_type), (edge_index, other), (edge_index.flip(0), edge_type)]
    expected = [layer(x, *graph) for graph in graphs]
    gnna_plugin.enable(min_work=0)
    for _ in range(2):
        for graph, result in zip(graphs, expected, strict=True):
            torch.testing.assert_close(layer(x, *graph), result)


def test_other_selections_in_the_same_pass():
    """A selection that a hook makes is not taken for that of a relation."""
    x, edge_index, edge_type = relational()
    layer, expected = built(), None
    for enabled in (False, True):
        if enabled:
            gnna_plugin.enable(min_work=0)
        hook = layer.register_message_forward_pre_hook(
            lambda *_: (rgcn_conv.masked_edge_index(edge_index, edge_type == 0), None)[1]
        )
        hooked = layer(x, edge_index, edge_type)
        hook.remove()
        found = layer(x, edge_index, edge_type)
        torch.testing.assert_close(found, hooked)
        expected = found if expected is None else expected
    torch.testing.assert_close(found, expected)
