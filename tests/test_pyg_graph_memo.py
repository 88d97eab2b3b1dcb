"""The cache of gcn_norm and of self-loops: a repeated graph gives the same values, every caller gets its own copies,
and no result is stale.
"""

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


def address(tensor):
    """Return the address of the elements. data_ptr() would copy memory that is shared copy-on-write."""
    return torch._C._data_address(tensor)


def remembered(found, before):
    """Return whether these results share memory, as copies do until one of them is written to."""
    return all(address(a) == address(b) for a, b in zip(found, before, strict=True))


def test_a_repeated_graph_is_not_normalised_again(edge_index):
    first = gcn_conv.gcn_norm(edge_index, None, 20)
    second = gcn_conv.gcn_norm(edge_index, None, 20)
    assert remembered(second, first)
    assert_same(first, plain(edge_index, None, 20))


def test_writes_and_gradients_of_one_caller_are_not_seen_by_others(edge_index):
    expected = plain(edge_index, None, 20)
    mine, others = gcn_conv.gcn_norm(edge_index, None, 20), gcn_conv.gcn_norm(edge_index, None, 20)
    mine[1].requires_grad_().square().sum().backward()
    mine[1].data.mul_(3)
    mine[0].fill_(7)
    others[1].numpy()[:5] = 0
    later = gcn_conv.gcn_norm(edge_index, None, 20)
    assert torch.equal(others[0], expected[0]) and torch.equal(others[1][5:], expected[1][5:])
    assert_same(later, expected)
    assert not later[1].requires_grad and later[1].grad is None


@pytest.mark.parametrize("write", ["data", "numpy", "data of the weight", "numpy of the weight"])
def test_writes_that_bypass_the_version_counter_are_noticed(edge_index, write):
    weight = torch.rand(100)
    for _ in range(2):
        gcn_conv.gcn_norm(edge_index, weight, 20)
    target = weight if "weight" in write else edge_index[0]
    if "data" in write:
        target.data[:10] = 3
    else:
        target.numpy()[:10] = 3
    assert_same(gcn_conv.gcn_norm(edge_index, weight, 20), plain(edge_index, weight, 20))


def test_a_swapped_weight_is_noticed(edge_index):
    weight, other = torch.rand(100), torch.rand(100)
    gcn_conv.gcn_norm(edge_index, weight, 20)
    torch.utils.swap_tensors(weight, other)
    assert_same(gcn_conv.gcn_norm(edge_index, weight, 20), plain(edge_index, weight, 20))


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
    gcn_conv.gcn_norm(edge_index, weight, 20)[1].zero_()  # a user writes to the result
    assert_same(gcn_conv.gcn_norm(edge_index, weight, 20), plain(edge_index, weight, 20))


def test_newly_assigned_data_is_noticed(edge_index):
    gcn_conv.gcn_norm(edge_index, None, 20)
    edge_index.data = torch.randint(0, 20, (2, 100))
    assert_same(gcn_conv.gcn_norm(edge_index, None, 20), plain(edge_index, None, 20))


def test_trained_weights_get_their_gradient_every_time(edge_index):
    weight = torch.rand(100, requires_grad=True)
    grads = []
    for _ in range(3):
        (grad,) = torch.autograd.grad(gcn_conv.gcn_norm(edge_index, weight, 20)[1].square().sum(), weight)
        grads.append(grad)
    assert torch.equal(grads[0], grads[2])


@pytest.mark.parametrize("self_loops", [True, False])
def test_an_entry_dies_with_its_graph(edge_index, self_loops):
    """Without added self-loops the result is the input itself, which the cache must not keep alive."""
    local = edge_index.clone()
    died = weakref.ref(local)
    gcn_conv.gcn_norm(local, None, 20, False, self_loops)
    gnna_plugin.spmm(torch.rand(20, 4), local)
    assert gnna_plugin.status().plans == 1
    del local
    gc.collect()
    assert died() is None and gnna_plugin.status().plans == 0


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


def test_self_loops_of_layers_are_cached_and_those_of_scripts_are_not(edge_index):
    def looped(module):
        return module.add_self_loops(module.remove_self_loops(edge_index)[0], num_nodes=20)[0]

    first = looped(gat_conv)
    assert address(looped(gat_conv)) == address(first) and torch.equal(first, looped(utils))
    assert address(looped(utils)) != address(first)
    edge_index[:, :5] = 3
    assert torch.equal(looped(gat_conv), looped(utils))
    assert gat_conv.add_self_loops(edge_index, num_nodes=25)[0].max() == 24
    with gnna_plugin.disabled():
        assert address(looped(gat_conv)) != address(first)
    gnna_plugin.disable()
    assert gat_conv.remove_self_loops is utils.remove_self_loops and gat_conv.add_self_loops is utils.add_self_loops


def test_the_default_dtype_belongs_to_the_key(edge_index):
    before = torch.get_default_dtype()
    try:
        for dtype in (torch.float32, torch.float64, torch.float32):
            torch.set_default_dtype(dtype)
            assert gcn_conv.gcn_norm(edge_index, None, 20)[1].dtype == dtype
    finally:
        torch.set_default_dtype(before)


def test_attributes_of_self_loops_follow_the_fill_value(edge_index):
    attr = torch.rand(100, 3)
    fill = torch.rand(3)
    for value in (2.0, "mean", fill, fill):
        found = gat_conv.add_self_loops(edge_index, attr, value, 20)
        assert_same(found, utils.add_self_loops(edge_index, attr, value, 20))
    fill.zero_()
    assert not gat_conv.add_self_loops(edge_index, attr, fill, 20)[1][100:].any()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_during_capture_only_results_cached_before_are_used():
    gnna_plugin.enable(min_work=0)
    edge_index = torch.randint(0, 20, (2, 100), device="cuda")
    other = edge_index.clone()
    normalised, looped = gcn_conv.gcn_norm(edge_index, None, 20), graph_memo.with_self_loops(edge_index, 20)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        again = gcn_conv.gcn_norm(edge_index, None, 20)
        assert remembered(again, normalised)
        assert address(graph_memo.with_self_loops(edge_index, 20)) == address(looped)
        assert graph_memo.with_self_loops(other, 20) is None
        doubled = again[1] * 2
    expected = normalised[1] * 2
    del normalised, looped, again, edge_index
    gnna_plugin.clear_cache()
    torch.cuda.empty_cache()
    graph.replay()  # reads the cached values, which outlive the cache
    torch.testing.assert_close(doubled, expected)


@pytest.mark.parametrize(
    "make",
    [GCNConv, GATConv, GATv2Conv, lambda *w: GATConv(*w, heads=2, edge_dim=3)],
    ids=["GCN", "GAT", "GATv2", "attr"],
)
def test_a_repeated_graph_needs_no_new_plans(make, edge_index):
    """Plans for existing messages are built in the second pass, all others in the first."""
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
