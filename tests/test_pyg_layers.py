"""PyG's layers and user-written ones give the same outputs and gradients with the plug-in, and are counted as fused."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers
from torch_geometric import EdgeIndex
from torch_geometric.data import HeteroData
from torch_geometric.nn import GCNConv, HeteroConv, SAGEConv, to_hetero

import gnna_plugin


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def counts(layer):
    return gnna_plugin.status().layers[type(layer).__name__]


@pytest.mark.parametrize("name", layers.FUSED)
def test_fused_layers_give_pygs_outputs_and_gradients(device, name):
    if device.type == "cuda" and name.startswith("OwnScatter"):
        pytest.skip("these layers make CPU tensors")
    x, edge_index, edge = layers.graph(device)
    layer = layers.build(layers.FUSED[name], device)
    edge_input = edge[layers.FUSED[name][1]]
    expected = layers.outputs_and_gradients(layer, x, edge_index, edge_input)
    if "cached" in name:
        layer.reset_parameters()
        layer = layers.build(layers.FUSED[name], device)
    gnna_plugin.enable(min_work=0)
    for _ in range(2):  # the second pass hits the caches
        assert_same(layers.outputs_and_gradients(layer, x, edge_index, edge_input), expected)
    assert counts(layer).fused >= 2
    assert not counts(layer).framework


@pytest.mark.parametrize("name", layers.NOT_FUSED)
def test_layers_that_are_not_fused_give_pygs_outputs_and_gradients(device, name):
    x, edge_index, edge = layers.graph(device)
    layer = layers.build(layers.NOT_FUSED[name], device)
    edge_input = edge[layers.NOT_FUSED[name][1]]
    expected = layers.outputs_and_gradients(layer, x, edge_index, edge_input)
    gnna_plugin.enable(min_work=0)
    assert_same(layers.outputs_and_gradients(layer, x, edge_index, edge_input), expected)
    assert bool(counts(layer).materialised) != (name in layers.REWRITTEN) and not counts(layer).framework


@pytest.mark.parametrize("name", ["GCNConv", "GINConv", "SAGEConv-max", "GATConv", "WeightedMessage"])
def test_fused_layers_in_float32(device, name):
    x, edge_index, edge = layers.graph(device, torch.float32)
    layer = layers.build(layers.FUSED[name], device, torch.float32)
    edge_input = edge[layers.FUSED[name][1]]
    expected = layers.outputs_and_gradients(layer, x, edge_index, edge_input)
    gnna_plugin.enable(min_work=0)
    for a, b in zip(layers.outputs_and_gradients(layer, x, edge_index, edge_input), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


class Difference(layers.PlainMessage):
    """A layer whose messages cannot be fused, but are reduced by our op."""

    def message(self, x_j, x_i):
        return x_j - x_i


BATCHED = [name for name in layers.FUSED if name.split("-")[0] in
           ("GCNConv", "GINConv", "SAGEConv", "GraphConv", "TAGConv", "APPNP", "PlainMessage", "WeightedMessage")
           and "cached" not in name]  # fmt: skip


@pytest.mark.parametrize("batch", [(3,), (2, 3), (1,)])
@pytest.mark.parametrize("name", [*BATCHED, "Difference"])
def test_leading_batch_dimensions(device, name, batch):
    """Features [*B, N, F] share one graph and one weight per edge."""
    entry = layers.FUSED.get(name, (Difference, None))
    x, edge_index, edge = layers.graph(device)
    x = torch.randn(*batch, *x.shape, dtype=x.dtype, device=device)
    layer, edge_input = layers.build(entry, device), edge[entry[1]]
    expected = layers.outputs_and_gradients(layer, x, edge_index, edge_input)
    gnna_plugin.enable(min_work=0)
    found = layers.outputs_and_gradients(layer, x, edge_index, edge_input)
    assert_same(found, expected)
    assert found[0].is_contiguous()  # as in PyG, so that the user may call view()
    done = gnna_plugin.status().layers
    counts = done[type(layer).__name__]
    assert counts.reduced == 1 if name == "Difference" else counts.fused >= 1
    assert not any(counts.framework for counts in done.values())


def test_batched_messages_that_another_operation_reads(device):
    x, edge_index, _ = layers.graph(device)
    batched = torch.stack([x, 2 * x])

    class Rectified(layers.PlainMessage):
        def message(self, x_j):
            return (0.5 * x_j).relu()

    layer = Rectified().to(device, x.dtype)
    expected = layers.outputs_and_gradients(layer, batched, edge_index, None)
    gnna_plugin.enable(min_work=0)
    assert_same(layers.outputs_and_gradients(layer, batched, edge_index, None), expected)
    assert counts(layer).materialised == {"relu": 1}


def test_bipartite_and_explicit_size(device):
    x, _, _ = layers.graph(device)
    edge_index = torch.stack([torch.randint(0, 40, (90,)), torch.randint(0, 12, (90,))]).to(device)
    layer = SAGEConv((layers.WIDTH, layers.WIDTH), 8).to(device, torch.float64)
    alone = SAGEConv((layers.WIDTH, layers.WIDTH), 8, root_weight=False).to(device, torch.float64)
    expected = layer((x, x[:12]), edge_index), alone((x, None), edge_index, size=(40, 15))
    gnna_plugin.enable(min_work=0)
    found = layer((x, x[:12]), edge_index), alone((x, None), edge_index, size=(40, 15))
    assert_same(found, expected)
    assert counts(layer).fused == 2


def test_edge_index_class(device):
    x, edge_index, _ = layers.graph(device)
    for order in (None, "row", "col"):
        edges = edge_index if order is None else edge_index[:, edge_index[0 if order == "row" else 1].argsort()]
        edges = EdgeIndex(edges, sparse_size=(40, 40), sort_order=order)
        layer = SAGEConv(layers.WIDTH, 8).to(device, torch.float64)
        expected = layer(x, edges)
        with gnna_plugin.enabled(min_work=0):
            torch.testing.assert_close(layer(x, edges), expected)
    assert counts(layer).fused == 3


def test_hetero_models(device):
    x, edge_index, _ = layers.graph(device)
    small = edge_index % 20
    data = HeteroData()
    data["a"].x, data["b"].x = x, x[:20]
    data["a", "to", "b"].edge_index = torch.stack([edge_index[0], small[1]])
    data["b", "back", "a"].edge_index = torch.stack([small[0], edge_index[1]])
    relations = HeteroConv(
        {("a", "to", "b"): SAGEConv((-1, -1), 8), ("b", "back", "a"): SAGEConv((-1, -1), 8, aggr="max")}, aggr="sum"
    ).to(device, torch.float64)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = SAGEConv((-1, -1), 8)

        def forward(self, x, edge_index):
            return self.conv(x, edge_index).relu()

    converted = to_hetero(Net(), data.metadata()).to(device, torch.float64)
    for model in (relations, converted):
        with torch.no_grad():
            model(data.x_dict, data.edge_index_dict)
        expected = model(data.x_dict, data.edge_index_dict)
        with gnna_plugin.enabled(min_work=0):
            found = model(data.x_dict, data.edge_index_dict)
        for key in expected:
            torch.testing.assert_close(found[key], expected[key])
    assert gnna_plugin.status().layers["SAGEConv"].fused == 4


@pytest.mark.parametrize(
    ("change", "error"),
    [((0, 5, -3), "negative indices"), ((0, 5, 99), "larger than 39"), ((1, 5, 99), "dim_size")],
)
@pytest.mark.parametrize("name", ["PlainMessage", "GraphConv", "SAGEConv-max"])
def test_an_index_out_of_range_raises_pygs_error(device, name, change, error):
    """A source out of range raises IndexError and a destination ValueError, with PyG's message.

    The error, or its cause, also names the position.
    """
    x, edge_index, edge = layers.graph(device)
    row, position, value = change
    edge_index[row, position] = value
    layer = layers.build(layers.FUSED[name], device)
    inputs = (x, edge_index) if layers.FUSED[name][1] is None else (x, edge_index, edge["weight"])
    kind = IndexError if row == 0 else ValueError
    if device.type == "cpu":
        with pytest.raises(kind, match=error):
            layer(*inputs)
    gnna_plugin.enable(min_work=0)
    with pytest.raises(kind, match=error) as raised:
        layer(*inputs)
    text = str(raised.value) + str(raised.value.__cause__ or raised.value.__context__)
    assert f"[5] = {value}" in text


def test_a_class_first_instantiated_while_enabled_is_fused(device):
    """PyG generates propagate for a class when the class is first instantiated."""
    gnna_plugin.enable(min_work=0)

    class Fresh(layers.PlainMessage):
        def message(self, x_j):
            return 2 * x_j

    x, edge_index, _ = layers.graph(device)
    layer = Fresh().to(device, torch.float64)
    found = layer(x, edge_index)
    assert counts(layer).fused == 1
    gnna_plugin.disable()
    torch.testing.assert_close(found, layer(x, edge_index))


def test_second_order_gradients_through_a_layer(device):
    x, edge_index, _ = layers.graph(device)
    layer = GCNConv(layers.WIDTH, 4).to(device, torch.float64)

    def penalty():
        leaf = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(layer(leaf, edge_index).square().sum(), leaf, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), layer.lin.weight)[0]

    expected = penalty()
    gnna_plugin.enable(min_work=0)
    torch.testing.assert_close(penalty(), expected)
    assert counts(layer).fused == 1
