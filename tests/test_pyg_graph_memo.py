"""The memory of gcn_norm and of self-loops: the same graph gives the same tensors back, and nothing stale ever."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers
import torch_geometric.nn.conv.gat_conv as gat_conv
import torch_geometric.nn.conv.gcn_conv as gcn_conv
import torch_geometric.utils as utils
from torch_geometric.nn import GATConv, GATv2Conv, GCNConv

import gnna_plugin
from gnna_plugin import surroundings
from gnna_plugin.adapters.pyg import graph_memo


@pytest.fixture
def edge_index():
    gnna_plugin.enable(min_work=0)
    return torch.randint(0, 20, (2, 100))


def plain(*args, **kwargs):
    with gnna_plugin.disabled():
        return gcn_conv.gcn_norm(*args, **kwargs)


def assert_same(found, expected):
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_same_tensors_come_back(edge_index):
    first = gcn_conv.gcn_norm(edge_index, None, 20)
    second = gcn_conv.gcn_norm(edge_index, None, 20)
    assert first[0] is second[0] and first[1] is second[1]
    assert_same(first, plain(edge_index, None, 20))


def test_every_option_belongs_to_the_key(edge_index):
    weight = torch.rand(100)
    for options in (
        (None, 20),
        (weight, 20),
        (None, 25),
        (None, 20, True),
        (None, 20, False, False),
        (None, 20, False, True, "target_to_source"),
        (None, 20, False, True, "source_to_target", torch.float64),
    ):
        for _ in range(2):
            assert_same(gcn_conv.gcn_norm(edge_index, *options), plain(edge_index, *options))


def test_changes_in_place_are_seen(edge_index):
    weight = torch.rand(100)
    gcn_conv.gcn_norm(edge_index, weight, 20)
    weight.mul_(3)
    weight[:50] = 0.5
    assert_same(gcn_conv.gcn_norm(edge_index, weight, 20), plain(edge_index, weight, 20))
    edge_index[0, :10] = 3
    assert_same(gcn_conv.gcn_norm(edge_index, weight, 20), plain(edge_index, weight, 20))
    gcn_conv.gcn_norm(edge_index, weight, 20)[1].zero_()  # a user who spoils the result
    assert_same(gcn_conv.gcn_norm(edge_index, weight, 20), plain(edge_index, weight, 20))


def test_data_swapped_underneath(edge_index):
    gcn_conv.gcn_norm(edge_index, None, 20)
    edge_index.data = torch.randint(0, 20, (2, 100))
    assert_same(gcn_conv.gcn_norm(edge_index, None, 20), plain(edge_index, None, 20))


def test_trained_weights_get_their_gradient_every_time(edge_index):
    weight = torch.rand(100, requires_grad=True)
    grads = []
    for _ in range(3):
        (grad,) = torch.autograd.grad(gcn_conv.gcn_norm(edge_index, weight, 20)[1].square().sum(), weight)
        grads.append(grad)
    assert torch.equal(grads[0], grads[2]) and not graph_memo._memo


@pytest.mark.parametrize("self_loops", [True, False])
def test_an_entry_dies_with_its_graph(edge_index, self_loops):
    """Without added self-loops the result is the input itself; that must not keep it alive."""
    gcn_conv.gcn_norm(edge_index, None, 20, False, self_loops)
    assert len(graph_memo._memo) == 1
    alive = weakref.ref(edge_index)
    local = edge_index.clone()
    gcn_conv.gcn_norm(local, None, 20, False, self_loops)
    died = weakref.ref(local)
    del local
    gc.collect()
    assert died() is None and alive() is not None and len(graph_memo._memo) == 1


def test_inference_results_do_not_reach_training():
    gnna_plugin.enable(min_work=0)
    x, edge_index, _ = layers.graph(dtype=torch.float32)
    layer = GCNConv(layers.WIDTH, 4)
    with torch.inference_mode():
        expected = layer(x, edge_index)
    leaf = x.clone().requires_grad_()
    out = layer(leaf, edge_index)
    out.sum().backward()
    torch.testing.assert_close(out, expected)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x, edge_index), expected)


def test_self_loops_of_layers_are_remembered_and_those_of_scripts_are_not(edge_index):
    def looped(module):
        return module.add_self_loops(module.remove_self_loops(edge_index)[0], num_nodes=20)[0]

    first = looped(gat_conv)
    assert looped(gat_conv) is first and torch.equal(first, looped(utils))
    assert utils.remove_self_loops(edge_index)[0] is not utils.remove_self_loops(edge_index)[0]
    edge_index[:, :5] = 3
    assert torch.equal(looped(gat_conv), looped(utils))
    assert gat_conv.add_self_loops(edge_index, num_nodes=25)[0].max() == 24
    with gnna_plugin.disabled():
        assert looped(gat_conv) is not looped(gat_conv)
    gnna_plugin.disable()
    assert gat_conv.remove_self_loops is utils.remove_self_loops and gat_conv.add_self_loops is utils.add_self_loops


def test_attributes_of_self_loops_follow_the_fill_value(edge_index):
    attr = torch.rand(100, 3)
    fill = torch.rand(3)
    for value in (2.0, "mean", fill, fill):
        found = gat_conv.add_self_loops(edge_index, attr, value, 20)
        assert_same(found, utils.add_self_loops(edge_index, attr, value, 20))
    fill.zero_()
    assert not gat_conv.add_self_loops(edge_index, attr, fill, 20)[1][100:].any()


def test_while_a_cuda_graph_is_captured_only_what_was_there_before_is_used(edge_index, monkeypatch):
    normalised, looped = gcn_conv.gcn_norm(edge_index, None, 20), graph_memo.with_self_loops(edge_index, 20)
    monkeypatch.setattr(surroundings, "capturing", lambda tensor: True)
    again = gcn_conv.gcn_norm(edge_index, None, 20)
    assert again[0] is normalised[0] and again[1] is normalised[1]
    assert graph_memo.with_self_loops(edge_index, 20) is looped
    entries = len(graph_memo._memo)
    other = edge_index.clone()
    assert graph_memo.with_self_loops(other, 20) is None
    assert_same(gcn_conv.gcn_norm(other, None, 20), normalised)
    assert len(graph_memo._memo) == entries
    graph_memo._memo.clear()
    assert any(kept[0] is normalised[0] for kept in graph_memo._captured)  # the graph may be replayed at any time


def test_only_a_layer_s_weight_that_follows_from_the_edges_alone_is_constant(edge_index, monkeypatch):
    constant = []
    monkeypatch.setattr(torch.ops.gnna, "mark_constant", constant.append)
    x, layer = torch.randn(20, 4), GCNConv(4, 4)
    layer(x, edge_index, torch.rand(100))
    gat_conv.add_self_loops(edge_index, torch.rand(100, 3), 1.0, 20)
    graph_memo.with_self_loops(edge_index, 20)
    mine = gcn_conv.gcn_norm(edge_index, None, 20)[1]  # which I may write to
    assert not constant
    layer(x, edge_index)
    assert len(constant) == 1 and torch.equal(constant[0], mine) and constant[0] is not mine
    layer(x, edge_index)
    assert len(constant) == 1


def test_an_entry_of_self_loops_dies_with_its_graph(edge_index):
    GATConv(layers.WIDTH, 4)(torch.randn(20, layers.WIDTH), edge_index.clone())
    gc.collect()
    assert not graph_memo._memo


@pytest.mark.parametrize(
    "make",
    [GCNConv, GATConv, GATv2Conv, lambda *w: GATConv(*w, heads=2, edge_dim=3)],
    ids=["GCN", "GAT", "GATv2", "attr"],
)
def test_a_graph_that_comes_again_has_its_plans(make, edge_index):
    """Those of existing messages are built in the second pass, all others in the first."""
    x, layer = torch.randn(20, layers.WIDTH), make(layers.WIDTH, 4)
    if getattr(layer, "edge_dim", None):
        attr = torch.rand(100, 3)
        forward = layer.forward
        layer.forward = lambda x, ends: forward(x, ends, attr)
    for _ in range(2):
        layer(x.requires_grad_(), edge_index).sum().backward()
    before = gnna_plugin.status().plan_misses
    layer(x, edge_index).sum().backward()
    assert gnna_plugin.status().plan_misses == before
