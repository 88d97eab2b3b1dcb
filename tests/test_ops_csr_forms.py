"""Graphs given in CSR or CSC form give the results and gradients of their edge list, without another sort."""

from __future__ import annotations

import pytest
import torch

import gnna_plugin

NODES, TARGETS, EDGES = 30, 17, 200


@pytest.fixture
def graph(device):
    """Return unsorted src [E] and dst [E], with destinations that have no edges."""
    generator = torch.Generator().manual_seed(3)
    src = torch.randint(0, NODES, (EDGES,), generator=generator)
    dst = torch.randint(1, TARGETS - 1, (EDGES,), generator=generator)
    return src.to(device), dst.to(device)


def compressed(ids, other, count):
    """Return (ptr [count + 1], other in the order of ids, perm) of an edge list."""
    perm = ids.argsort(stable=True)
    ptr = torch.cat([ids.new_zeros(1), torch.bincount(ids, minlength=count).cumsum(0)])
    return ptr.to(ids.dtype), other[perm], perm.to(ids.dtype)


def results(run, x, weight):
    """Return the output of run(x, weight) and the gradients of x and weight."""
    x, weight = (t.detach().clone().requires_grad_() for t in (x, weight))
    out = run(x, weight)
    grads = torch.autograd.grad((out * torch.linspace(-1, 1, out.numel()).view_as(out).to(out)).sum(), (x, weight))
    return [out.detach(), *grads]


@pytest.mark.parametrize("ids", [torch.int32, torch.int64])
@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("form", ["csr", "csc"])
def test_both_forms_give_what_the_edge_list_gives(graph, form, reduce, ids):
    src, dst = (end.to(ids) for end in graph)
    x, weight = (torch.randn(n, 5, dtype=torch.float64, device=src.device) for n in (NODES, EDGES))
    edge_index = torch.stack([src, dst])
    expected = results(lambda x, w: gnna_plugin.spmm(x, edge_index, w, TARGETS, reduce), x, weight)
    if form == "csr":
        ptr, other, perm = compressed(dst, src, TARGETS)
        found = results(lambda x, w: gnna_plugin.spmm_csr(x, ptr, other, w, perm, reduce), x, weight)
        in_order = results(lambda x, w: gnna_plugin.spmm_csr(x, ptr, other, w, None, reduce), x, weight[perm.long()])
    else:
        ptr, other, perm = compressed(src, dst, NODES)
        found = results(lambda x, w: gnna_plugin.spmm_csc(x, ptr, other, w, perm, TARGETS, reduce), x, weight)
        in_order = results(
            lambda x, w: gnna_plugin.spmm_csc(x, ptr, other, w, None, TARGETS, reduce), x, weight[perm.long()]
        )
    in_order[2] = torch.empty_like(in_order[2]).index_copy_(0, perm.long(), in_order[2])
    for other_way in (found, in_order):
        for a, b in zip(other_way, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_form_is_a_cache_hit_as_long_as_its_tensors_live(device):
    dense = torch.rand(6, 9, dtype=torch.float64, device=device).relu() * (torch.rand(6, 9, device=device) > 0.5)
    adjacency, x = dense.to_sparse_csr(), torch.randn(9, 4, dtype=torch.float64, device=device)
    parts = [part.clone() for part in (adjacency.crow_indices(), adjacency.col_indices(), adjacency.values())]
    plans, _, hits, misses, _ = torch.ops.gnna.cache_info()
    for _ in range(2):
        torch.testing.assert_close(gnna_plugin.spmm_csr(x, *parts), dense @ x)
    assert torch.ops.gnna.cache_info()[0] == plans + 1
    assert list(torch.ops.gnna.cache_info()[2:4]) == [hits + 2, misses]  # the form itself was cached as a plan


def test_the_parts_of_a_torch_sparse_matrix_work_without_a_cache_hit(device):
    """torch returns new tensors of the parts at every call, without version counters."""
    dense = torch.rand(6, 9, dtype=torch.float64, device=device).relu() * (torch.rand(6, 9, device=device) > 0.5)
    adjacency, x = dense.to_sparse_csr(), torch.randn(9, 4, dtype=torch.float64, device=device)
    for _ in range(2):
        parts = adjacency.crow_indices(), adjacency.col_indices(), adjacency.values()
        torch.testing.assert_close(gnna_plugin.spmm_csr(x, *parts), dense @ x)


def test_a_form_changed_in_place_is_another_graph(graph):
    ptr, other, perm = compressed(graph[1], graph[0], TARGETS)
    x = torch.randn(NODES, 2, device=other.device)
    gnna_plugin.spmm_csr(x, ptr, other, None, perm)
    other.add_(1).clamp_(max=NODES - 1)
    rows = torch.repeat_interleave(torch.arange(TARGETS, device=x.device), ptr.diff())
    expected = torch.zeros(TARGETS, 2, device=x.device).index_add_(0, rows, x[other])
    torch.testing.assert_close(gnna_plugin.spmm_csr(x, ptr, other, None, perm), expected)


def test_plans_are_dropped_with_their_form(graph):
    x = torch.ones(NODES, 2, device=graph[0].device)
    gnna_plugin.clear_cache()
    for _ in range(4):
        ptr, other, _ = compressed(graph[1], graph[0], TARGETS)
        gnna_plugin.spmm_csr(x, ptr, other)
    assert torch.ops.gnna.cache_info()[0] <= 2  # those of the current form and of the one before it


@pytest.mark.parametrize(
    ("rowptr", "col", "perm", "words"),
    [
        ([], [0], None, "rowptr is empty"),
        ([0, 2], [0], None, "rowptr runs from 0 to 2 with 1 column ids"),
        ([1, 1], [0], None, "rowptr runs from 1 to 1"),
        ([0, 2, 1, 3], [0, 1, 2], None, "rowptr falls after position 1"),
        ([0, 3], [0, 4, 2], None, r"col\[1\] = 4 is out of range: valid indices are 0 to 2"),
        ([0, 3], [0, -1, 2], None, r"col\[1\] = -1"),
        ([0, 3], [0, 1, 2], [0, 1, 1], "perm is not a permutation of the 3 edges"),
        ([0, 3], [0, 1, 2], [0, 1, 3], "perm is not a permutation"),
        ([0, 3], [0, 1, 2], [0, 1], "perm has 2 elements"),
    ],
)
def test_an_invalid_csr_form_is_refused(device, rowptr, col, perm, words):
    rowptr, col, perm = (
        None if t is None else torch.tensor(t, dtype=torch.int64, device=device) for t in (rowptr, col, perm)
    )
    with pytest.raises(ValueError, match=words):
        gnna_plugin.spmm_csr(torch.ones(3, 2, device=device), rowptr, col, None, perm)


def test_ids_of_another_type_are_refused(device):
    with pytest.raises(TypeError, match="rowptr and col are"):
        gnna_plugin.spmm_csr(
            torch.ones(3, 2, device=device), torch.tensor([0.0, 1.0], device=device), torch.tensor([0], device=device)
        )


def test_no_rows_and_no_edges(device):
    zero, nothing = torch.zeros(1, dtype=torch.int64, device=device), torch.empty(0, dtype=torch.int64, device=device)
    assert gnna_plugin.spmm_csr(torch.ones(3, 2, device=device), zero, nothing).shape == (0, 2)
    rows = torch.zeros(5, dtype=torch.int64, device=device)
    assert torch.equal(
        gnna_plugin.spmm_csr(torch.ones(3, 2, device=device), rows, nothing), torch.zeros(4, 2, device=device)
    )


def test_opcheck(graph):
    ptr, other, perm = compressed(graph[1], graph[0], TARGETS)
    torch.library.opcheck(torch.ops.gnna.edges_of_csr.default, (ptr, other, perm, NODES, False))
