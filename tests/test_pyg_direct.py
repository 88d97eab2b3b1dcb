"""PyG's simplest layers run as one op, unless something is to happen between their gather and their reduction."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_geometric")

import functools

import pyg_layers as layers
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import (
    EGConv,
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
from gnna_plugin.adapters.pyg import direct, layer_call

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

    def run(*args, **kwargs):
        raise AssertionError("PyG's steps ran")

    monkeypatch.setattr(layer_call, "Call", run)
    monkeypatch.setattr(layer_call, "leave", run)


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
    kernels = 2 if name == "GATv2Conv" else 1  # its scores are one of their own
    assert layer_counts.fused == (0 if min_work else kernels)
    assert not layer_counts.materialised


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


@pytest.mark.parametrize("min_work", [0, 1 << 40], ids=["fused", "left to PyG"])
@pytest.mark.parametrize("step", ["update", "aggregate", "_check_input", "_index_select_safe", "propagate"])
def test_replaced_steps_run(step, min_work, monkeypatch):
    x, edge_index, _ = layers.graph()
    owner = SAGEConv if step == "propagate" else MessagePassing
    gnna_plugin.enable(min_work=min_work)
    original, calls = getattr(owner, step), []

    @functools.wraps(original)
    def replaced(*args, **kwargs):
        calls.append(step)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, step, replaced)
    SAGEConv(W, 8).double()(x, edge_index)
    assert calls or (step == "_index_select_safe" and not min_work)  # the lazy gather has no such step


@pytest.mark.parametrize("min_work", [0, 1 << 40], ids=["fused", "left to PyG"])
@pytest.mark.parametrize("aggregators", [["mean"], ["max", "min"], ["sum", "var"], ["symnorm"]])
def test_a_layer_with_its_own_aggregate(aggregators, min_work):
    x, edge_index, _ = layers.graph()
    layer = layers.build((lambda: EGConv(W, 8, aggregators, num_heads=4),))
    expected = layers.outputs_and_gradients(layer, x, edge_index)
    gnna_plugin.enable(min_work=min_work)
    for a, b in zip(layers.outputs_and_gradients(layer, x, edge_index), expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("how", ["x.mul_", "x.data", "weight.mul_"])
@pytest.mark.parametrize("aggr", ["sum", "mean", "max"])
def test_writes_between_forward_and_backward(aggr, how):
    """PyG saves messages, which such a write does not change."""
    x, edge_index, edge = layers.graph()

    def gradient():
        features, weight = x.clone(), edge["weight"].clone().requires_grad_()
        scale = weight * 1
        out = SimpleConv(aggr=aggr)(features, edge_index, scale)
        if how == "x.mul_":
            features.mul_(0)
        elif how == "x.data":
            features.data.zero_()
        else:
            scale.data.mul_(0)
        out.square().sum().backward()
        return weight.grad

    expected = gradient()
    gnna_plugin.enable(min_work=0)
    torch.testing.assert_close(gradient(), expected)


def test_a_checkpoint_may_run_while_a_graph_becomes_a_repeated_one():
    x, edge_index = torch.randn(200, 64), torch.randint(0, 200, (2, 1500))
    layer = SAGEConv(64, 64)
    gnna_plugin.enable()
    for uses in range(12):
        features = x.clone().requires_grad_()
        layer(x, edge_index)
        checkpoint(lambda z: layer(z, edge_index), features, use_reentrant=False).sum().backward()
        assert features.grad is not None, uses


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
def test_tracing_gives_no_further_warnings():
    x, edge_index, _ = layers.graph()
    layer = layers.build((lambda: SAGEConv(W, 8),))
    gnna_plugin.enable(min_work=0)
    torch.testing.assert_close(torch.jit.trace(layer, (x, edge_index))(x, edge_index), layer(x, edge_index))


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
        for arguments in ({"x": x}, {"x": x, "edge_weight": None, "unknown": None}):
            with pytest.raises(TypeError):
                SimpleConv().propagate(edge_index, **arguments)


def test_the_forms_are_still_those_of_pyg():
    for cls in (GCNConv, GraphConv, SAGEConv, GATConv, GATv2Conv, RGCNConv, SimpleConv):
        assert direct._weight_of(cls.message) is not None, cls
