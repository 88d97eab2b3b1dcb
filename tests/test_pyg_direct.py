"""PyG's simplest layers run as one op, unless something is to happen between their gather and their reduction."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers
from torch_geometric.nn import (
    GATConv,
    GATv2Conv,
    GCNConv,
    GraphConv,
    MessagePassing,
    MFConv,
    RGCNConv,
    SAGEConv,
    SimpleConv,
)

import gnna_plugin
from gnna_plugin.adapters.pyg import direct

W = layers.WIDTH
SIMPLE = {
    "GCNConv": lambda: GCNConv(W, 8),
    "GraphConv-mean": lambda: GraphConv(W, 8, aggr="mean"),
    "GraphConv-max": lambda: GraphConv(W, 8, aggr="max"),
    "SAGEConv-mean": lambda: SAGEConv(W, 8),
    "SAGEConv-min": lambda: SAGEConv(W, 8, aggr="min"),
    "SAGEConv-reversed": lambda: SAGEConv(W, 8, flow="target_to_source"),
    "GATConv": lambda: GATConv(W, 4, heads=3),
    "GATv2Conv": lambda: GATv2Conv(W, 4, heads=3),
    "MFConv": lambda: MFConv(W, 8),
    "SimpleConv": lambda: SimpleConv(),
}


@pytest.fixture
def no_steps(monkeypatch):
    """Fails if PyG's own steps of a propagate run."""

    def collect(self, *args, **kwargs):
        raise AssertionError("PyG's steps ran")

    monkeypatch.setattr(MessagePassing, "_check_input", collect)


@pytest.mark.parametrize("min_work", [0, 1 << 40], ids=["fused", "left to PyG"])
@pytest.mark.parametrize("name", SIMPLE)
def test_simple_layers_give_pygs_outputs_and_gradients_without_its_steps(device, name, min_work, request):
    if min_work and (name.startswith("GAT") or (device.type == "cuda" and name.endswith(("max", "min")))):
        pytest.skip("runs PyG's steps")
    x, edge_index, _ = layers.graph(device)
    layer = layers.build((SIMPLE[name],), device)
    if name != "SimpleConv":
        expected = layers.outputs_and_gradients(layer, x, edge_index)
    else:
        expected = [layer(x, edge_index)]
    gnna_plugin.enable(min_work=min_work)
    if not name.startswith("GAT"):  # their edge_updater has further steps
        request.getfixturevalue("no_steps")
    found = layers.outputs_and_gradients(layer, x, edge_index) if name != "SimpleConv" else [layer(x, edge_index)]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    layer_counts = gnna_plugin.status().layers[type(layer).__name__]
    assert layer_counts.fused == (0 if min_work else 1)
    assert not layer_counts.materialised or name == "GATv2Conv"  # whose scores need x_i + x_j


@pytest.mark.parametrize("min_work", [0, 1 << 40], ids=["fused", "left to PyG"])
@pytest.mark.parametrize("size", [None, (layers.NODES, 30)])
@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_bipartite_inputs(device, flow, size, min_work):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(layers.NODES, W, generator=generator, dtype=torch.float64).to(device)
    other = torch.randn(30, W, generator=generator, dtype=torch.float64).to(device)
    rows = [torch.randint(0, limit, (200,), generator=generator) for limit in (layers.NODES, 30)]
    layer = layers.build((lambda: SAGEConv((W, W), 8, root_weight=flow == "source_to_target", flow=flow),), device)
    edge_index = torch.stack(rows).to(device)
    expected = layer((x, other), edge_index, size=size)
    gnna_plugin.enable(min_work=min_work)
    torch.testing.assert_close(layer((x, other), edge_index, size=size), expected)


@pytest.mark.parametrize("min_work", [0, 1 << 40], ids=["fused", "left to PyG"])
def test_hooks_and_own_messages_run(min_work):
    x, edge_index, edge = layers.graph()
    seen = []

    class Doubled(GraphConv):
        def message(self, x_j, edge_weight):
            seen.append(type(x_j))
            return 2 * x_j

    doubled, hooked = Doubled(W, 8).double(), GraphConv(W, 8).double()
    hooked.register_message_forward_hook(lambda module, inputs, out: out * 3)
    for layer in (doubled, hooked):
        expected = layer(x, edge_index)
        seen.clear()
        gnna_plugin.enable(min_work=min_work)
        torch.testing.assert_close(layer(x, edge_index), expected)
        gnna_plugin.disable()
    assert not seen
    gnna_plugin.enable(min_work=min_work)
    doubled(x, edge_index)
    assert seen


def test_wrong_input_raises_pygs_errors():
    x, edge_index, _ = layers.graph()
    layer, bad = SAGEConv(W, 8).double(), edge_index.clone()
    bad[0, 5] = layers.NODES
    for min_work in (0, 1 << 40):
        gnna_plugin.enable(min_work=min_work)
        with pytest.raises(IndexError, match="larger than"):
            layer(x, bad)
        with pytest.raises(ValueError, match="size"):
            layer((x, x), edge_index, size=(layers.NODES, layers.NODES + 1))


def test_the_forms_are_still_those_of_pyg():
    for cls in (GCNConv, GraphConv, SAGEConv, GATConv, GATv2Conv, RGCNConv, SimpleConv):
        assert direct._weight_of(cls.message) is not None, cls
