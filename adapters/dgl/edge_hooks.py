"""The replacements for DGL's computations on edges: edge_softmax, and the products of both ends' features (g-SDDMM).

g-SDDMM also computes the gradient of a weighted sum with respect to its weights. A call that does not fit is left to
DGL, which then also raises its own errors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from dgl.base import is_all
from torch import Tensor

from gnna_plugin import report, settings

from . import core, fit, graphs

# Narrowest feature row, in elements, for which our products are faster than DGL's on a CPU. At 16 they were 1.1 to 7
# times as fast on two graphs; narrower rows were slower in some cases (DGL 1.1.3; benchmarks/dgl_edges.py).
LEAST_WIDTH = 16
_ENDS = {"u": "u", "v": "v", "src": "u", "dst": "v"}


def gsddmm_hook(original: Callable) -> Callable:
    """Replace dgl.backend.pytorch.sparse._gsddmm for products of u and v.

    The replacement computes dot and mul, with the operands in either order and of one shape. Sums, differences, copies,
    edge operands and broadcasting are left to DGL, because memory traffic alone limits them.
    """

    @functools.wraps(original)
    def _gsddmm(gidx, op, lhs, rhs, lhs_target="u", rhs_target="v"):
        ends = _ENDS.get(lhs_target), _ENDS.get(rhs_target)
        if op not in ("dot", "mul") or ends not in (("u", "v"), ("v", "u")) or not settings.active():
            return original(gidx, op, lhs, rhs, lhs_target, rhs_target)
        found = _product(gidx, op, *((lhs, rhs) if ends[0] == "u" else (rhs, lhs)))
        if type(found) is tuple:
            fit.left(f"dgl.u_{op}_v", found)
            return original(gidx, op, lhs, rhs, lhs_target, rhs_target)
        report.fused(f"dgl.u_{op}_v")
        return found

    return _gsddmm


def _product(gidx: Any, op: str, u: Tensor, v: Tensor) -> Tensor | fit.Reason:
    reason = fit.unfit_ends(graphs.known(gidx), u, v, LEAST_WIDTH, least_on_gpu=0)
    if reason is not None:
        return reason
    entry = fit.entry_for(gidx, {"u": [u], "v": [v]})
    if isinstance(entry, tuple):
        return entry
    with torch.no_grad(), fit.dgl_errors():
        return core.product(entry.edges, u, v, op)


def edge_softmax_hook(original: Any) -> type:
    """Replace the autograd function dgl.backend.pytorch.sparse.EdgeSoftmax.

    edge_softmax looks it up by name for every graph of one edge type. The replacement is differentiable in C++, any
    number of times.
    """

    class EdgeSoftmax(original):
        @staticmethod
        def apply(gidx, score, eids, norm_by):
            if not settings.active():
                return original.apply(gidx, score, eids, norm_by)
            found = _softmax(gidx, score, eids, norm_by)
            if type(found) is tuple:
                fit.left("dgl.edge_softmax", found)
                return original.apply(gidx, score, eids, norm_by)
            report.fused("dgl.edge_softmax")
            return found

    return EdgeSoftmax


def _softmax(gidx: Any, score: Any, eids: Any, norm_by: str) -> Tensor | fit.Reason:
    if not is_all(eids):
        return ("a subset of the edges",)
    known = graphs.known(gidx)
    if not known.one_type:
        return ("several edge types at once",)
    reason = fit.too_small(known, [score]) or fit.unfit([score])
    if reason is not None:
        return reason
    entry = fit.entry_for(gidx, {"e": [score]})
    if isinstance(entry, tuple):
        return entry
    with fit.dgl_errors():
        return core.edge_softmax(entry.edges, score, norm_by)
