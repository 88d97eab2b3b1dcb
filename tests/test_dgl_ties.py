"""Ties in max and min: the same neighbour wins as in DGL, and therefore gets the gradient."""

from __future__ import annotations

import os

import pytest
import torch

os.environ.setdefault("DGLBACKEND", "pytorch")
dgl = pytest.importorskip("dgl")
pytestmark = pytest.mark.dgl

import dgl.backend.pytorch.sparse as sparse  # noqa: E402
import dgl.function as fn  # noqa: E402

import gnna_plugin  # noqa: E402

NODES, EDGES = 40, 400
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def few(values, *shape, dtype):
    """Return a tensor of random elements of `values`, which are few, so that most rows have ties."""
    picks = torch.randint(0, len(values), shape, generator=torch.Generator().manual_seed(sum(shape)))
    return torch.tensor(values, dtype=dtype)[picks]


def from_coo():
    ends = torch.randint(1, NODES - 1, (2, EDGES), generator=torch.Generator().manual_seed(3))
    return dgl.graph((ends[0], ends[1]), num_nodes=NODES)


def compressed(kind, ids):
    """Return a graph created from a CSC or CSR form; with ids=True its edge ids are shuffled."""
    rng = torch.Generator().manual_seed(4)
    degrees = torch.bincount(torch.randint(0, NODES, (EDGES,), generator=rng), minlength=NODES)
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), degrees.cumsum(0)])
    order = torch.randperm(EDGES, generator=rng) if ids else torch.empty(0, dtype=torch.int64)
    return dgl.graph((kind, (indptr, torch.randint(0, NODES, (EDGES,), generator=rng), order)), num_nodes=NODES)


GRAPHS = {
    "coo": from_coo,
    "int32": lambda: from_coo().int(),
    "reversed": lambda: dgl.reverse(from_coo()),
    "block": lambda: dgl.create_block(from_coo().edges(), NODES, NODES),
    "relation": lambda: dgl.heterograph({("a", "to", "b"): from_coo().edges()}, {"a": NODES, "b": NODES})["to"],
    "csc": lambda: compressed("csc", ids=False),
    "csc, shuffled ids": lambda: compressed("csc", ids=True),
    "csr": lambda: compressed("csr", ids=False),
    "csr, shuffled ids": lambda: compressed("csr", ids=True),
    "sorted by tag": lambda: dgl.sort_csc_by_tag(from_coo(), torch.arange(NODES) % 3),
}
SHAPES = [((1,), (1,)), ((16,), (16,)), ((33,), (33,)), ((4, 8), (4, 8)), ((), ()), ((16,), (1,)), ((4, 8), (4, 1)),
          ((1,), (16,))]  # fmt: skip
SPECIAL = [-float("inf"), float("inf"), float("nan"), -1.0, 0.0, 1.0]


def operands(op, u_shape, e_shape, dtype, values):
    u = few(values, NODES, *u_shape, dtype=dtype) if op != "copy_rhs" else None
    e = few([1.0, 2.0] if op != "copy_rhs" else values, EDGES, *e_shape, dtype=dtype) if op != "copy_lhs" else None
    return u, e


def assert_same_winners(make, op, reducer, u, e):
    try:
        plain = sparse._gspmm(make()._graph, op, reducer, u, e)
    except dgl.DGLError:  # DGL's libxsmm kernels refuse edge features on a CSC without edge ids
        assert make is GRAPHS["csc"] and e is not None and e.dtype != torch.float64
        return
    gnna_plugin.enable("dgl", min_work=0)
    before = gnna_plugin.status().fused_calls
    found = sparse._gspmm(make()._graph, op, reducer, u, e)
    broadcasts = u is not None and e is not None and (u.shape[1:] or (1,)) != (e.shape[1:] or (1,))
    ours = not (broadcasts and u.dtype == torch.bfloat16)  # DGL rounds these before it compares
    assert gnna_plugin.status().fused_calls == before + ours
    gnna_plugin.disable()
    torch.testing.assert_close(found, plain, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("op", ["copy_lhs", "copy_rhs", "mul"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("graph", GRAPHS)
def test_the_winner_is_the_same_as_dgls(graph, dtype, op):
    for reducer in ("max", "min"):
        for u_shape, e_shape in SHAPES:
            assert_same_winners(GRAPHS[graph], op, reducer, *operands(op, u_shape, e_shape, dtype, [-1.0, 0.0, 1.0]))


@pytest.mark.parametrize("op", ["copy_lhs", "copy_rhs", "mul"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("graph", ["coo", "csc, shuffled ids"])
def test_winners_among_infinities_and_nan_are_the_same_as_dgls(graph, dtype, op):
    for reducer in ("max", "min"):
        for shape in ((1,), (16,), (19,)):
            assert_same_winners(GRAPHS[graph], op, reducer, *operands(op, shape, shape, dtype, SPECIAL))


@pytest.mark.parametrize("dtype", DTYPES)
def test_winners_among_products_that_round_to_equal_numbers(dtype):
    u, e = torch.randn(NODES, 200).to(dtype), torch.randn(EDGES, 200).to(dtype)
    for reducer in ("max", "min"):
        assert_same_winners(from_coo, "mul", reducer, u, e)
        assert_same_winners(from_coo, "mul", reducer, u, e[:, :1].contiguous())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_winners_of_a_graph_with_only_a_coo(dtype):
    """In DGL's kernel for COO the first of equals wins, for every type."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with more threads, DGL's winner depends on their timing
    try:
        u, _ = operands("copy_lhs", (16,), (), dtype, [0.0, 1.0])
        assert_same_winners(lambda: from_coo().formats("coo"), "copy_lhs", "max", u, None)
    finally:
        torch.set_num_threads(threads)


def test_winners_with_and_without_libxsmm():
    u, _ = operands("copy_lhs", (16,), (), torch.float32, [0.0, 1.0])
    enabled = dgl.is_libxsmm_enabled()
    try:
        for libxsmm in (False, True, False):
            dgl.use_libxsmm(libxsmm)
            assert_same_winners(from_coo, "copy_lhs", "max", u, None)
    finally:
        dgl.use_libxsmm(enabled)


@pytest.mark.parametrize("reducer", ["max", "min"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_at_ties(dtype, reducer):
    def gradient():
        graph = dgl.graph(([0, 1, 2, 3], [4, 4, 4, 4]), num_nodes=5)
        x = torch.ones(5, 16, dtype=dtype, requires_grad=True)
        graph.ndata["h"] = x
        graph.update_all(fn.copy_u("h", "m"), getattr(fn, reducer)("m", "o"))
        graph.ndata["o"].sum().backward()
        return x.grad

    plain = gradient()
    gnna_plugin.enable("dgl", min_work=0)
    assert torch.equal(gradient(), plain)
