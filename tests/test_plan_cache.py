"""The plan cache: it hits for the same edge list in any view, never for another or a changed one, and holds no memory
for edge lists that are gone.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import reference
import torch

import gnna_plugin


def info():
    return dict(zip(("plans", "bytes", "hits", "misses", "max_bytes"), torch.ops.gnna.cache_info(), strict=True))


def run(x, edge_index, num_dst=None):
    return gnna_plugin.spmm(x, edge_index, num_dst=num_dst)


@pytest.fixture
def graph(device):
    return torch.randn(30, 4, dtype=torch.float64, device=device), torch.randint(0, 30, (2, 200), device=device)


def test_the_second_call_hits(graph):
    x, edge_index = graph
    run(x, edge_index)
    before = info()
    run(x, edge_index)  # edge_index[0] is a new view each time
    after = info()
    assert (after["hits"] - before["hits"], after["misses"] - before["misses"]) == (1, 0)


def test_the_transposed_plan_is_built_by_the_first_backward_pass(graph):
    x, edge_index = graph
    run(x, edge_index)
    assert info()["plans"] == 1
    run(x.requires_grad_(), edge_index).sum().backward()
    assert info()["plans"] == 2


def symmetric_graph(device):
    """Return a symmetric edge_index with self-loops and a repeated edge. The reversed edges are in another order."""
    one_way = torch.cat([torch.randint(0, 30, (2, 100)), torch.tensor([[3, 3, 7, 7], [8, 8, 7, 7]])], 1)
    return torch.cat([one_way, one_way.flip(0)[:, torch.randperm(104)]], 1).to(device)


def gradient(edge_index, reduce, weight=None):
    """Run spmm forwards and backwards and compare the gradient of x with the reference."""
    x = torch.randn(30, 4, dtype=torch.float64, device=edge_index.device, requires_grad=True)
    grad = torch.randn_like(x)
    torch.autograd.backward(gnna_plugin.spmm(x, edge_index, weight, reduce=reduce), grad)
    x_reference = x.detach().clone().requires_grad_()
    torch.autograd.backward(reference.spmm(x_reference, weight, *edge_index, 30, reduce), grad)
    torch.testing.assert_close(x.grad, x_reference.grad)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_a_symmetric_graph_has_one_plan_for_both_directions(device, reduce):
    edge_index = symmetric_graph(device)
    for _ in range(12):  # often enough for its rows to be reordered
        gradient(edge_index, reduce)
        assert info()["plans"] == 1
    one = info()["bytes"]
    # A weight belongs to one direction of its edge, so a weighted backward pass needs a transposed plan.
    gradient(edge_index, reduce, torch.rand(208, dtype=torch.float64, device=device))
    assert info()["plans"] == 2 and info()["bytes"] == 2 * one
    gradient(edge_index, reduce)
    assert info()["plans"] == 2 and info()["bytes"] == 2 * one


def test_has_plans_accepts_the_shared_plan_of_a_symmetric_graph_only_without_weights(device):
    edge_index = symmetric_graph(device)
    gradient(edge_index, "sum")
    assert torch.ops.gnna.has_plans(edge_index[0], True)
    weight = torch.rand(208, dtype=torch.float64, device=device)
    run(torch.randn(30, 4, device=device, dtype=torch.float64), edge_index)
    gnna_plugin.spmm(torch.randn(30, 4, device=device, dtype=torch.float64), edge_index, weight)
    assert not torch.ops.gnna.has_plans(edge_index[0], True)  # a weighted backward pass needs another plan
    gradient(edge_index, "sum", weight)
    assert torch.ops.gnna.has_plans(edge_index[0], True)


def test_the_shared_plan_of_a_symmetric_graph_is_evicted_for_both_directions(device):
    edge_index = symmetric_graph(device)
    try:
        gradient(edge_index, "sum")
        torch.ops.gnna.set_max_plan_bytes(0)
        assert info()["plans"] == 0 and not torch.ops.gnna.has_plans(edge_index[0], True)
        gradient(edge_index, "sum")
    finally:
        torch.ops.gnna.set_max_plan_bytes(4 << 30)
    gradient(edge_index, "sum")
    assert info()["plans"] == 1


@pytest.mark.parametrize("change", ["reversed", "once more", "moved"])
def test_a_graph_that_is_almost_symmetric_has_two_plans(device, change):
    edge_index = symmetric_graph(device)
    at = int((edge_index[0] != edge_index[1]).nonzero()[0])
    if change == "reversed":
        edge_index[:, at] = edge_index[:, at].flip(0)
    elif change == "once more":
        edge_index = torch.cat([edge_index, edge_index[:, at : at + 1]], 1)
    else:
        edge_index[0, at] = (edge_index[0, at] + 1) % 30
    gradient(edge_index, "sum")
    assert info()["plans"] == 2


def test_a_change_in_place_is_seen(graph):
    x, edge_index = graph
    run(x, edge_index)
    edge_index[1, :50] = 3
    torch.testing.assert_close(run(x, edge_index), reference.spmm(x, None, *edge_index, 30, "sum"))


def test_other_views_of_one_storage_are_other_plans(graph):
    x, edge_index = graph
    for view in (edge_index, edge_index[:, 10:], edge_index[:, :-10], edge_index[:, ::2], edge_index.flip(0)):
        torch.testing.assert_close(run(x, view), reference.spmm(x, None, *view, 30, "sum"))


def test_sizes_belong_to_the_key(graph):
    x, edge_index = graph
    assert run(x, edge_index, 30).shape[0] == 30
    assert run(x, edge_index, 50).shape[0] == 50
    with pytest.raises(ValueError, match="dst"):
        run(x, edge_index, 2)


def test_reused_memory_is_not_mistaken_for_the_old_list(device):
    x = torch.randn(30, 4, dtype=torch.float64, device=device)
    for _ in range(50):  # the allocator reuses the same address
        edge_index = torch.randint(0, 30, (2, 200), device=device)
        torch.testing.assert_close(run(x, edge_index), reference.spmm(x, None, *edge_index, 30, "sum"))
        del edge_index


def test_plans_are_dropped_with_their_edge_lists(device):
    x = torch.randn(30, 4, device=device)
    for _ in range(20):
        run(x, torch.randint(0, 30, (2, 200), device=device))
    assert info()["plans"] <= 2


def test_the_cache_is_bounded_by_bytes_and_can_be_cleared(device):
    x = torch.randn(30, 4, device=device)
    lists = [torch.randint(0, 30, (2, 10_000), device=device) for _ in range(8)]
    try:
        run(x, lists[0])
        one = info()["bytes"]
        torch.ops.gnna.set_max_plan_bytes(3 * one)
        for edge_index in lists:
            run(x, edge_index)
        assert info()["plans"] == 3 and info()["bytes"] <= 3 * one
        torch.ops.gnna.set_max_plan_bytes(0)
        assert info()["plans"] == 0
        assert run(x, lists[0]).shape == x.shape  # a plan above the bound works but is not cached
        assert info()["plans"] == 0
    finally:
        torch.ops.gnna.set_max_plan_bytes(4 << 30)
    run(x, lists[0])
    gnna_plugin.clear_cache()
    assert info()["plans"] == 0 and info()["bytes"] == 0


def test_an_untrained_weight_changed_in_place_is_seen(graph):
    """A weight that is not trained may still be written to, so it must never be read from a copy."""
    x, edge_index = graph
    weight = torch.rand(200, dtype=torch.float64, device=x.device)
    for factor in (1, 1, 1, 2, 2, 2):
        weight.mul_(factor)
        found = gnna_plugin.spmm(x, edge_index, weight)
        torch.testing.assert_close(found, reference.spmm(x, weight, *edge_index, 30, "sum"))


def test_other_views_of_one_weight_are_other_weights(graph):
    x, edge_index = graph
    x = x.view(30, 2, 2)
    weight = torch.rand(200, 2, dtype=torch.float64, device=x.device)
    for _ in range(3):
        for view in (weight, weight, weight[:, :1].expand(-1, 2), weight[:, 0]):
            found = gnna_plugin.spmm(x, edge_index, view)
            torch.testing.assert_close(found, reference.spmm(x, view, *edge_index, 30, "sum"))


def test_a_trained_weight_written_through_data_is_seen(graph):
    x, edge_index = graph
    weight = torch.rand(200, dtype=torch.float64, device=x.device, requires_grad=True)
    for _ in range(4):
        weight.data.mul_(1.5)  # as old optimizers do; the version counter does not change
        found = gnna_plugin.spmm(x, edge_index, weight)
        torch.testing.assert_close(found, reference.spmm(x, weight, *edge_index, 30, "sum"))


def test_inference_tensors_work_and_do_not_reach_training(device):
    with torch.inference_mode():
        x, edge_index = torch.randn(30, 4, device=device), torch.randint(0, 30, (2, 200), device=device)
        assert run(x, edge_index).shape == (30, 4)
    edge_index = torch.randint(0, 30, (2, 200), device=device)
    with torch.inference_mode():
        run(torch.randn(30, 4, device=device), edge_index)  # the plan is built here
    x = torch.randn(30, 4, device=device, requires_grad=True)
    gnna_plugin.spmm(x, edge_index, reduce="mean").sum().backward(create_graph=True)
    assert x.grad.shape == x.shape


def test_threads_may_share_and_clear_the_cache(device):
    x = torch.randn(200, 8, dtype=torch.float64, device=device)
    lists = [torch.randint(0, 200, (2, 3000), device=device) for _ in range(4)]
    expected = [reference.spmm(x, None, *edge_index, 200, "sum") for edge_index in lists]

    def work(i):
        if i % 7 == 0:
            gnna_plugin.clear_cache()
        return i % 4, run(x, lists[i % 4])

    with ThreadPoolExecutor(8) as pool:
        for i, found in pool.map(work, range(200)):
            torch.testing.assert_close(found, expected[i])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_graph_capture_uses_a_plan_and_never_builds_one():
    x, edge_index = torch.randn(300, 16, device="cuda"), torch.randint(0, 300, (2, 5000), device="cuda")
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="run the same forward and backward step"), torch.cuda.graph(graph):
        run(x, edge_index)
    expected = run(x, edge_index)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(x, edge_index)
    gnna_plugin.clear_cache()  # the captured plan must survive this
    torch.cuda.empty_cache()
    x.mul_(2)
    graph.replay()
    torch.testing.assert_close(captured, expected * 2)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_of_captures_is_counted_once_and_released_on_request(caplog):
    gnna_plugin.release_captures()
    x, edge_index = torch.randn(300, 16, device="cuda"), torch.randint(0, 300, (2, 5000), device="cuda")
    weight = torch.rand(5000, device="cuda")
    torch.ops.gnna.mark_constant(weight)
    for _ in range(3):
        gnna_plugin.spmm(x, edge_index, weight)
    held = []
    for _ in range(3):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            gnna_plugin.spmm(x, edge_index, weight)
        held.append(gnna_plugin.status().capture_bytes)
    assert held[0] > 5000 * 4 and held[2] - held[0] < 200  # each capture adds two checksums
    assert "captured CUDA graphs" in str(gnna_plugin.status())
    with caplog.at_level("INFO", "gnna_plugin"):
        gnna_plugin.disable()
    assert "release_captures" in caplog.text and gnna_plugin.status().capture_bytes == held[2]
    del graph
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    gnna_plugin.release_captures()
    assert gnna_plugin.status().capture_bytes == 0 and torch.cuda.memory_allocated() < before


def test_without_captures_no_memory_is_held_for_them():
    x, edge_index = torch.randn(300, 16), torch.randint(0, 300, (2, 5000))
    gnna_plugin.spmm(x, edge_index)
    gnna_plugin.release_captures()
    assert gnna_plugin.status().capture_bytes == 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("warm_ups", [1, 3])
def test_a_captured_graph_keeps_reading_its_weight(warm_ups):
    """Calls with another weight, and freed memory, do not affect a graph that was captured with this weight."""
    x, edge_index = torch.randn(300, 16, device="cuda"), torch.randint(0, 300, (2, 5000), device="cuda")
    weight, other = torch.rand(5000, device="cuda"), torch.rand(5000, device="cuda")

    def weighted(w):
        return gnna_plugin.spmm(x, edge_index, w)

    for _ in range(warm_ups):
        expected = weighted(weight)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = weighted(weight)
    torch.testing.assert_close(weighted(weight), expected)  # before the first replay
    for _ in range(3):
        weighted(other)
    torch.cuda.empty_cache()
    graph.replay()
    torch.testing.assert_close(captured, expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("warm_ups", [3, 6])  # rows are sorted at the sixth call
@pytest.mark.parametrize("constant", [False, True])
def test_a_replay_follows_a_weight_unless_that_is_constant(constant, warm_ups):
    """For a constant weight, a captured graph reads a copy in slot order, which outlives the cache.

    The write to the weight shows whether a replay reads the copy or the weight.
    """
    x, edge_index = torch.randn(6000, 16, device="cuda"), torch.randint(0, 6000, (2, 33000), device="cuda")
    edge_index[1, ::11] = 0
    weight = torch.rand(33000, device="cuda")
    if constant:
        torch.ops.gnna.mark_constant(weight)
    for _ in range(warm_ups):
        expected = gnna_plugin.spmm(x, edge_index, weight)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gnna_plugin.spmm(x, edge_index, weight.view(-1))
    gnna_plugin.clear_cache()
    torch.cuda.empty_cache()
    weight *= 2
    graph.replay()
    torch.testing.assert_close(captured, expected if constant else expected * 2)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_graph_capture_of_a_csr_form_outlives_the_cache():
    x = torch.randn(300, 16, device="cuda", requires_grad=True)
    weight = torch.rand(5000, device="cuda", requires_grad=True)
    rowptr = torch.arange(0, 5001, 50, device="cuda")
    col = torch.randint(0, 300, (5000,), device="cuda")

    def gradients():
        return torch.autograd.grad(gnna_plugin.spmm_csr(x, rowptr, col, weight).square().sum(), (x, weight))

    expected = gradients()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gradients()
    gnna_plugin.clear_cache()
    torch.cuda.empty_cache()
    graph.replay()
    for a, b in zip(captured, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_ops_that_need_a_plan_are_tagged_cudagraph_unsafe():
    if not hasattr(torch.Tag, "cudagraph_unsafe"):
        pytest.skip("this torch has no tag cudagraph_unsafe")
    for name in ("spmm", "spmm_arg", "sddmm", "segment_reduce", "extremum_backward", "mean_divisor", "edges_of_csr"):
        assert torch.Tag.cudagraph_unsafe in getattr(torch.ops.gnna, name).default.tags, name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_hits_its_parents_cache():
    x, edge_index = torch.randn(30, 4), torch.randint(0, 30, (2, 200))
    expected = run(x, edge_index)
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # as in a DataLoader's worker
        hits = info()["hits"]
        os._exit(0 if torch.equal(run(x, edge_index), expected) and info()["hits"] == hits + 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_streams_may_share_a_plan():
    x, edge_index = torch.randn(3000, 64, device="cuda"), torch.randint(0, 3000, (2, 90_000), device="cuda")
    expected = run(x, edge_index)
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(3)]
    results = []
    for i in range(30):
        with torch.cuda.stream(streams[i % 3]):
            results.append(run(x, edge_index))
            if i % 5 == 4:
                gnna_plugin.clear_cache()
    torch.cuda.synchronize()
    assert all(torch.equal(r, expected) for r in results)
