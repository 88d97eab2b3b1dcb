"""The replacements for DGL's g-SpMM functions. Each validates its arguments first. A call that does not fit is left to
DGL, which then also raises its own errors.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import report, settings

from . import core, fit, graphs, winners

_OPS = ("copy_lhs", "copy_rhs", "mul")


class _Decided(threading.local):
    """Whether this thread runs a call that dgl.ops.gspmm has left to DGL.

    The hook of _gspmm, which DGL then calls, need not check it again.
    """

    left = False


_decided = _Decided()


class Call:
    """A g-SpMM that the ops support.

    Attributes:
        entry: the edges of the graph.
        operands: the operands of the op.
        used: (whether u is used, whether e is used).
        scalar_u, scalar_e: whether the features are scalars, to which a dimension of 1 was added.
        last: whether the last of equal neighbours wins a max or min, not the first.
    """

    __slots__ = ("entry", "last", "operands", "scalar_e", "scalar_u", "used")

    def __init__(
        self, entry: graphs.Entry, operands: core.Operands, used: tuple, scalar_u: bool, scalar_e: bool, last: bool
    ) -> None:
        self.entry, self.operands = entry, operands
        self.used, self.scalar_u, self.scalar_e = used, scalar_u, scalar_e
        self.last = last

    def narrowed(self, out: Tensor) -> Tensor:
        """Return out without the dimension that was added to scalar features."""
        u, e = self.used
        return out.squeeze(-1) if (self.scalar_u or not u) and (self.scalar_e or not e) else out


def _fit(gidx: Any, known: graphs.Known, op: str, reduce: str, u: Any, e: Any) -> Call | None:
    """Return the call with the ops' operands, or None if it is left to DGL.

    In that case the reason is counted.
    """
    call = _try_fit(gidx, known, op, reduce, u, e)
    if isinstance(call, tuple):
        fit.left(f"dgl.{op}_{reduce}", call)
        return None
    return call


def _try_fit(gidx: Any, known: graphs.Known, op: str, reduce: str, u: Any, e: Any) -> Call | fit.Reason:
    if op not in _OPS:
        return (f"the binary operation {op}",)
    ends = {"u": [u]} if op == "copy_lhs" else {"e": [e]} if op == "copy_rhs" else {"u": [u], "e": [e]}
    tensors = [t for group in ends.values() for t in group]
    gains = reduce in ("sum", "mean") and op != "copy_rhs"
    reason = fit.too_small(known, tensors, gains) or fit.unfit(tensors)
    if reason is not None:
        return reason
    last = False
    if reduce in ("max", "min"):
        if known.order is None:
            known.order = winners.order_of(gidx)  # before entry_for() creates the edge list, see order_of
        if winners.rounds_first(known.order, tensors):
            return ("bfloat16 products that DGL rounds before it compares them",)
        last = winners.last_wins(known.order, tensors)
    entry = fit.entry_for(gidx, ends)
    if isinstance(entry, tuple):
        return entry
    used = "u" in ends, "e" in ends
    scalar_u, scalar_e = used[0] and u.dim() == 1, used[1] and e.dim() == 1
    operands = core.prepare(op, u.unsqueeze(-1) if scalar_u else u, e.unsqueeze(-1) if scalar_e else e)
    if isinstance(operands, str):
        return (operands,)
    return Call(entry, operands, used, scalar_u, scalar_e, last)


def _count(layer: str, call: Call, out: Tensor, reduce: str) -> None:
    operands, edges = call.operands, call.entry.edges
    if operands.x is None or reduce in ("max", "min"):  # other ops than spmm, whose launches are not decided
        report.fused(layer)
    else:
        report.aggregated(layer, operands.x, operands.weight, edges.src, edges.dst, out, reduce)


def _extremum(call: Call, order: winners.Order, reduce: str, positions: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    edges = call.entry.edges
    if order.ids is None:
        return core.extremum(edges, call.operands, reduce, positions, call.last)
    return core.extremum_in_order(order.edges(edges), order.ids, call.operands, reduce, positions, call.last)


def gspmm_hook(original: Callable) -> Callable:
    """Replace dgl.backend.pytorch.sparse._gspmm.

    It runs below DGL's autograd, so no gradient is recorded. For max and min it also returns the winners.
    """

    @functools.wraps(original)
    def _gspmm(gidx, op, reduce_op, u, e):
        if _decided.left or not settings.active() or reduce_op not in ("sum", "max", "min"):
            return original(gidx, op, reduce_op, u, e)
        known = graphs.known(gidx)
        call = _fit(gidx, known, op, reduce_op, u, e) if known.one_type else None
        if call is None:
            return original(gidx, op, reduce_op, u, e)
        edges, used = call.entry.edges, call.used
        with torch.no_grad(), fit.dgl_errors():
            if reduce_op == "sum":
                out, arg_u, arg_e = core.aggregate(edges, call.operands, "sum"), None, None
            else:
                positions = call.entry.positions() if call.operands.messages is not None else None
                out, arg_u, arg_e = _extremum(call, known.order, reduce_op, positions)
                arg_u = (arg_u.squeeze(-1) if call.scalar_u else arg_u) if used[0] else None
                arg_e = (arg_e.squeeze(-1) if call.scalar_e else arg_e) if used[1] else None
        _count(f"dgl.{op}_{reduce_op}", call, out, reduce_op)
        return call.narrowed(out), (arg_u, arg_e)

    return _gspmm


def ops_gspmm_hook(original: Callable) -> Callable:
    """Replace dgl.ops.gspmm: compute sum and mean with their gradients in C++.

    Other calls continue to _gspmm.
    """

    @functools.wraps(original)
    def gspmm(g, op, reduce_op, lhs_data, rhs_data):
        if reduce_op not in ("sum", "mean") or not settings.active():
            return original(g, op, reduce_op, lhs_data, rhs_data)
        known = graphs.known(g._graph)
        if not known.one_type or torch.is_autocast_enabled():  # under CUDA autocast DGL casts the operands
            return original(g, op, reduce_op, lhs_data, rhs_data)
        call = _fit(g._graph, known, op, reduce_op, lhs_data, rhs_data)
        if call is None:
            _decided.left = True
            try:
                return original(g, op, reduce_op, lhs_data, rhs_data)
            finally:
                _decided.left = False
        with fit.dgl_errors():
            out = core.aggregate(call.entry.edges, call.operands, reduce_op)
        _count(f"dgl.{op}_{reduce_op}", call, out, reduce_op)
        return call.narrowed(out)

    return gspmm
