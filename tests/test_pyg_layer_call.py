"""The wrapper around a layer's call: disable() removes it, and it counts inputs that PyG aggregates by itself."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers
from torch_geometric.nn import GATConv, GCNConv, GINConv, MessagePassing, SAGEConv

import gnna_plugin

NAMES = ("propagate", "edge_updater", "_orig_propagate", "_jinja_propagate")


def held(classes=(MessagePassing, GCNConv, GATConv, SAGEConv, GINConv, layers.PlainMessage)):
    return [vars(cls).get(name) for cls in classes for name in NAMES]


def test_disable_restores_the_functions_of_every_class():
    GCNConv(2, 2), GATConv(2, 2), layers.PlainMessage()
    before = held()
    gnna_plugin.enable("pyg")
    assert GCNConv.propagate is not before[4]
    gnna_plugin.disable()
    assert held() == before


def test_disable_restores_pygs_functions_in_a_class_first_used_while_enabled():
    gnna_plugin.enable("pyg", min_work=0)

    class Late(layers.PlainMessage):
        pass

    x, edge_index, _ = layers.graph(dtype=torch.float32)
    layer = Late()
    out = layer(x, edge_index)
    assert gnna_plugin.status().layers["Late"].fused == 1
    gnna_plugin.disable()
    assert not any(hasattr(vars(cls).get(name), "_gnna_wraps") for cls in Late.__mro__ for name in NAMES)
    torch.testing.assert_close(layer(x, edge_index), out)


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_layer_is_accelerated_again_after_explain_mode(when):
    x, edge_index, _ = layers.graph(dtype=torch.float32)
    layer = SAGEConv(layers.WIDTH, 8)
    expected = layer(x, edge_index)
    if when == "while":
        gnna_plugin.enable("pyg", min_work=0)
    layer.explain = True
    layer.explain = False
    gnna_plugin.enable("pyg", min_work=0)
    for _ in range(2):
        torch.testing.assert_close(layer(x, edge_index), expected)
    assert gnna_plugin.status().layers["SAGEConv"].fused
    gnna_plugin.disable()
    torch.testing.assert_close(layer(x, edge_index), expected)


def test_a_gather_outside_a_call_falls_back():
    x, edge_index, _ = layers.graph(dtype=torch.float32)
    layer = SAGEConv(layers.WIDTH, 8)
    gnna_plugin.enable("pyg", min_work=0)
    assert type(layer._index_select(x, edge_index[0])) is torch.Tensor
    assert dict(gnna_plugin.status().layers["SAGEConv"].framework) == {"gathered outside propagate()": 1}
