"""The identity of edge lists: a plan is found by the version counter and the storage of its edge list, is verified with
a checksum, and is dropped when the edge list is.
"""

from __future__ import annotations

import gc

import numpy as np
import pytest
import reference
import torch

import gnna_plugin

NODES, EDGES = 30, 200


def plans():
    return gnna_plugin.status().plans


def edges(device="cpu", count=EDGES):
    return torch.randint(0, NODES, (2, count), device=device)


def assert_right(edge_index, weight=None, reduce="sum"):
    x = torch.randn(NODES, 4, dtype=torch.float64, device=edge_index.device)
    found = gnna_plugin.spmm(x, edge_index, weight, reduce=reduce)
    torch.testing.assert_close(found, reference.spmm(x, weight, *edge_index, NODES, reduce))


def through_data(edge_index):
    edge_index.data[:, :20] = 3


def through_an_alias(edge_index):
    edge_index.numpy()[:, -20:] = 5


def one_edge(edge_index):
    edge_index.numpy()[0, 77] = (edge_index[0, 77] + 1) % NODES


@pytest.mark.parametrize("write", [through_data, through_an_alias, one_edge])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_write_that_bypasses_the_version_counter_is_noticed(write, weighted):
    edge_index = edges()
    weight = torch.rand(EDGES, dtype=torch.float64) if weighted else None
    for _ in range(2):
        assert_right(edge_index, weight)
    write(edge_index)
    assert_right(edge_index, weight)


def test_writes_to_an_array_shared_with_numpy_are_noticed():
    array = np.random.default_rng(0).integers(0, NODES, (2, EDGES))
    edge_index = torch.from_numpy(array)
    for _ in range(3):
        assert_right(edge_index)
        array[:] = np.roll(array, 7, axis=1)
        array[1, :9] = 4


def test_a_strided_edge_list_is_checked_too():
    pairs = torch.randint(0, NODES, (EDGES, 2))
    edge_index = pairs.t()
    assert_right(edge_index)
    pairs.numpy()[50:60] = 2
    assert_right(edge_index)


def test_a_write_to_a_long_list_is_noticed_within_eight_uses():
    """Every use of a list above 512 KiB checks an eighth of it, so a single edge is noticed within eight uses."""
    src, dst = torch.randint(0, NODES, (2, 400_000))
    x = torch.randn(NODES, 1)
    before = gnna_plugin.spmm(x, torch.stack((src, dst)))
    edge_index = torch.stack((src, dst))
    gnna_plugin.spmm(x, edge_index)
    edge_index.numpy()[1, 399_999] = (int(dst[-1]) + 1) % NODES
    changed = [not torch.equal(gnna_plugin.spmm(x, edge_index), before) for _ in range(10)]
    assert all(changed[8:])
    edge_index.numpy()[:] = edge_index.numpy()[:, ::-1].copy()
    edge_index.numpy()[1] = 3
    assert gnna_plugin.spmm(x, edge_index)[4].item() == 0  # a list that was rewritten is noticed at once


def test_edge_lists_read_through_data_are_correct(device):
    """`t.data` is a new tensor with a new version counter on the same storage, so its plan cannot be recognised."""
    edge_index, weight = edges(device), torch.rand(EDGES, dtype=torch.float64, device=device)
    for _ in range(6):
        assert_right(edge_index.data, weight.data)
        with torch.no_grad():
            weight.mul_(1.5)
            edge_index[1] = edge_index[1].roll(3)
    assert plans() <= 2


def test_a_users_weight_is_never_used_from_a_copy():
    edge_index, weight = edges(), torch.rand(EDGES, dtype=torch.float64)
    for _ in range(4):
        assert_right(edge_index, weight)
        weight.data.mul_(2)
        weight.numpy()[:10] = 0


def test_new_data_assigned_to_a_tensor_is_another_list(device):
    edge_index = edges(device)
    for _ in range(6):
        for _ in range(2):  # twice, so that the allocator reuses the first address
            edge_index.data = edges(device)
        assert_right(edge_index)


def test_swapped_tensors_keep_their_plans_apart(device):
    one, other = edges(device), edges(device)
    assert_right(one)
    assert_right(other)
    torch.utils.swap_tensors(one, other)
    assert_right(one)
    assert_right(other)


def test_a_list_that_is_rewritten_has_one_plan(device):
    edge_index = edges(device)
    for _ in range(20):
        edge_index[1].random_(0, NODES)
        assert_right(edge_index)
    assert plans() == 1


@pytest.mark.parametrize("kind", ["growing", "sliding", "buffer"])
def test_plans_of_slices_hold_at_most_a_multiple_of_their_tensors_memory(device, kind):
    events = edges(device, 20_000)
    x = torch.randn(NODES, 4, device=device)
    for step in range(1, 200):
        if kind == "buffer":
            events[:, : 100 * step].random_(0, NODES)
        window = events[:, 50 * step : 50 * step + 5000] if kind == "sliding" else events[:, : 100 * step]
        gnna_plugin.spmm(x, window)
    held = gnna_plugin.status().plan_bytes
    assert held <= 9 * events.nbytes and (kind != "buffer" or plans() == 1)


def test_slices_that_are_made_again_hit_the_cache(device):
    """A data set keeps its graphs in one tensor and slices it again in every epoch."""
    events = edges(device, 5000)
    x = torch.randn(NODES, 4, device=device)

    def epoch():
        for at in range(0, 5000, 500):
            gnna_plugin.spmm(x, events[:, at : at + 500])

    epoch()
    misses = gnna_plugin.status().plan_misses
    epoch()
    assert gnna_plugin.status().plan_misses == misses and plans() == 10


def test_plans_are_dropped_with_their_lists(device):
    kept = [edges(device) for _ in range(50)]
    for edge_index in kept:
        assert_right(edge_index)
    assert plans() == 50
    del kept[10:], edge_index
    gc.collect()
    assert plans() == 10
    assert_right(kept[3])


def test_a_cached_gcn_norm_is_recognised_until_it_is_written_to():
    gnna_plugin.enable(min_work=0)
    gcn_conv = pytest.importorskip("torch_geometric.nn.conv.gcn_conv")
    edge_index = edges()
    first, _ = gcn_conv.gcn_norm(edge_index, None, NODES)
    second, _ = gcn_conv.gcn_norm(edge_index, None, NODES)
    assert_right(first)
    misses = gnna_plugin.status().plan_misses
    assert_right(second)
    assert gnna_plugin.status().plan_misses == misses
    second.numpy()[0, :10] = 2
    assert_right(second)
    assert_right(first)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("what", ["edges", "weight"])
def test_on_a_gpu_a_write_that_bypasses_the_version_counter_raises_later(what):
    gnna_plugin.enable(min_work=0)
    gcn_conv = pytest.importorskip("torch_geometric.nn.conv.gcn_conv")
    edge_index, weight = edges("cuda"), torch.rand(EDGES, device="cuda")
    x = torch.randn(NODES, 4, device="cuda")

    def use():
        result = gnna_plugin.spmm(x, edge_index) if what == "edges" else gcn_conv.gcn_norm(edge_index, weight, NODES)[1]
        torch.cuda.synchronize()
        return result

    for _ in range(3):
        use()
    (edge_index if what == "edges" else weight).data[..., :5] = 1
    with pytest.raises(RuntimeError, match="autograd does not see"):
        for _ in range(40):
            use()
    right = use()  # works again, with a new plan or result
    gnna_plugin.clear_cache()
    torch.testing.assert_close(use(), right)
