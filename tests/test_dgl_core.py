"""The DGL adapter's core on plain tensors, which needs no DGL: every operation, reduction, type and broadcast against
float64, with DGL's rules for empty rows and winners.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import reference
import torch

import gnna_plugin.adapters

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
BROADCASTS = [((6,), (6,)), ((6,), (1,)), ((1,), (6,)), ((2, 5), (2, 1)), ((2, 5), (1, 1)), ((1, 5), (2, 1))]


def _load():
    """Load core.py by itself, because its package imports DGL."""
    (file,) = (found for p in gnna_plugin.adapters.__path__ if (found := Path(p) / "dgl" / "core.py").exists())
    spec = importlib.util.spec_from_file_location("dgl_core", file)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)  # dataclasses look up their module there
    spec.loader.exec_module(module)
    return module


core = _load()


def close(found, exact, dtype):
    assert found.dtype == dtype and found.shape == exact.shape
    scale = exact[exact.isfinite()].abs().max() if exact.isfinite().any() else 1.0
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=TOLERANCE[dtype] * float(scale))


@pytest.fixture(params=[k for k in reference.KINDS if k != "empty"])
def edges(request, device):
    src, dst, n, m = reference.edges(request.param, device)
    return core.Edges(src, dst, n, m)


def messages_of(edges, op, u, e):
    if op == "copy_lhs":
        return u[edges.src]
    return e if op == "copy_rhs" else u[edges.src] * e


def reduced(messages, edges, reduce):
    places = torch.arange(messages.size(0), device=messages.device)
    return reference.spmm(messages, None, places, edges.dst, edges.num_dst, reduce)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("u_shape", "e_shape"), BROADCASTS, ids=str)
def test_sums_means_and_their_gradients(edges, dtype, u_shape, e_shape, device):
    u = torch.randn(edges.num_src, *u_shape, device=device).to(dtype).requires_grad_()
    e = torch.rand(edges.src.numel(), *e_shape, device=device).to(dtype).requires_grad_()
    for op in ("copy_lhs", "copy_rhs", "mul"):
        operands = core.prepare(op, u, e)
        if isinstance(operands, str):  # left to DGL
            assert "broadcasts over leading" in operands and e_shape == (1, 1)
            continue
        exact_u, exact_e = (t.detach().double().requires_grad_() for t in (u, e))
        exact_messages = messages_of(edges, op, exact_u, exact_e)
        for reduce in ("sum", "mean"):
            out = core.aggregate(edges, operands, reduce)
            exact = reduced(exact_messages, edges, reduce)
            close(out, exact, dtype)
            leaves = [(u, exact_u)] * (op != "copy_rhs") + [(e, exact_e)] * (op != "copy_lhs")
            grads = torch.autograd.grad(out.float().sum(), [leaf for leaf, _ in leaves], retain_graph=True)
            expected = torch.autograd.grad(exact.sum(), [leaf for _, leaf in leaves], retain_graph=True)
            for grad, exact_grad in zip(grads, expected, strict=True):
                close(grad, exact_grad, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("reduce", ["max", "min"])
def test_extrema_name_their_winners(edges, dtype, reduce, device):
    u = torch.randn(edges.num_src, 2, 3, device=device).to(dtype)
    e = torch.rand(edges.src.numel(), 2, 1, device=device).to(dtype)
    positions = torch.arange(edges.src.numel(), dtype=edges.src.dtype, device=device)
    empty = torch.bincount(edges.dst.long(), minlength=edges.num_dst) == 0
    for op in ("copy_lhs", "copy_rhs", "mul"):
        out, node, edge = core.extremum(edges, core.prepare(op, u, e), reduce, positions)
        messages = messages_of(edges, op, u.double(), e.double())
        exact = reduced(messages, edges, reduce)
        close(out[~empty], exact[~empty], dtype)
        won = messages.gather(0, edge[~empty].long().flatten(1).view_as(exact[~empty]))
        close(out[~empty], won, dtype)
        assert op == "copy_rhs" or torch.equal(node[~empty], edges.src[edge[~empty].long()])
        limit = torch.finfo(dtype).max if dtype == torch.float16 and device.type == "cuda" else float("inf")
        assert (out[empty] == (-limit if reduce == "max" else limit)).all()
        assert not node[empty].any() and not edge[empty].any()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_products_and_softmax_of_edges(edges, dtype, device):
    u, v = (torch.randn(n, 2, 16, device=device).to(dtype) for n in (edges.num_src, edges.num_dst))
    each = u.double()[edges.src] * v.double()[edges.dst]
    close(core.product(edges, u, v, "mul"), each, dtype)
    close(core.product(edges, u, v, "dot"), each.sum(-1, keepdim=True), dtype)
    scores = torch.randn(edges.src.numel(), 4, device=device).to(dtype)
    for norm_by, index in (("dst", edges.dst), ("src", edges.src)):
        index = index.long()
        exact = scores.double().exp()
        total = exact.new_zeros(int(index.max()) + 1, 4).index_add_(0, index, exact)
        close(core.edge_softmax(edges, scores, norm_by), exact / total[index], dtype)


def test_a_graph_without_edges_gives_zeros(device):
    none = torch.zeros(0, dtype=torch.int32, device=device)
    edges, u = core.Edges(none, none, 5, 3), torch.randn(5, 4, device=device)
    assert not core.aggregate(edges, core.prepare("copy_lhs", u, None), "sum").any()
    out, node, edge = core.extremum(edges, core.prepare("copy_lhs", u, None), "max", none)
    assert out.shape == (3, 4) and not out.any() and not node.any() and not edge.any()
