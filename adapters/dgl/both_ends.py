"""Sums and means of messages of both ends of an edge, such as u_add_v, which DGL computes edge by edge first.

update_all() looks for an operator of dgl.ops with the name of the message and the reduction, u_add_v_sum. DGL has
those of u and e only; for the others it stores all messages, [E, *S], and then reduces them. The plug-in adds the
missing operators. A sum is linear, so the sum of u_j + v_i is the sum of u_j plus v_i times the in-degree: the ends are
reduced one by one, and nothing of the size of the edges is stored, in either direction. A call that does not fit is
left to DGL's two steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import report, settings

from . import fit, graphs

# Narrowest feature row, in elements, for which one pass is faster than DGL's two (benchmarks/dgl_edges.py).
LEAST_WIDTH = 16
_REDUCES = ("sum", "mean")
# Products of u and e are weighted sums (hooks.py). u_add_e and u_sub_e are reduced by DGL, which is as fast there.
_DGLS = ("u_add_e", "u_sub_e", "u_mul_e", "e_mul_u")
MESSAGES = tuple(
    message
    for lhs in "uve"
    for rhs in "uve"
    for op in ("add", "sub", "mul")
    if lhs != rhs and (message := f"{lhs}_{op}_{rhs}") not in _DGLS
)


def reduce(g: Any, message: str, reduce_op: str, lhs: Any, rhs: Any) -> Tensor | None:
    """Return the sum or mean of the messages over the in-edges of every node, [num_dst, *S].

    Args:
        message: one of MESSAGES.
        lhs, rhs: features of the two ends.

    Returns:
        None if the call is left to DGL; the reason is counted.
    """
    if not settings.active():
        return None
    layer = f"dgl.{message}_{reduce_op}"
    found = _try_reduce(g, message, reduce_op, lhs, rhs)
    if isinstance(found, tuple):
        fit.left(layer, found)
        return None
    report.fused(layer)
    return found


def _try_reduce(g: Any, message: str, reduce_op: str, lhs: Any, rhs: Any) -> Tensor | fit.Reason:
    first, op, second = message.split("_")
    if torch.is_autocast_enabled():
        return ("autocast",)  # DGL casts the operands
    reason = fit.unfit_ends(graphs.known(g._graph), lhs, rhs, LEAST_WIDTH, LEAST_WIDTH)
    if reason is not None:
        return reason
    entry = fit.entry_for(g._graph, {first: [lhs], second: [rhs]})
    if isinstance(entry, tuple):
        return entry
    ends = {first: lhs, second: rhs}
    with fit.dgl_errors():
        if op == "mul":  # v_i * u_j and v_i * e: v_i multiplies the reduced row
            factor = ends.pop("v")
            ((end, x),) = ends.items()
            return _without_edges_zero(entry, factor * _reduced(entry, end, x, reduce_op))
        left, right = (_reduced(entry, end, x, reduce_op) for end, x in ends.items())
        return left + right if op == "add" else left - right


def _reduced(entry: graphs.Entry, end: str, x: Tensor, reduce_op: str) -> Tensor:
    """Reduce the features of one end over the in-edges of every node."""
    edges = entry.edges
    if end == "u":
        return torch.ops.gnna.spmm(x, None, edges.src, edges.dst, edges.num_dst, reduce_op, True)
    if end == "e":
        return torch.ops.gnna.segment_reduce(x, edges.dst, edges.num_dst, reduce_op, True)
    if reduce_op == "sum":
        x = x * _as_rows(entry.in_degrees().to(x.dtype), x)
    return _without_edges_zero(entry, x)


def _without_edges_zero(entry: graphs.Entry, out: Tensor) -> Tensor:
    """Set the rows of nodes without in-edges to 0, also where they are infinite or NaN."""
    isolated = entry.isolated()
    return out if isolated is None else out.masked_fill(_as_rows(isolated, out), 0)


def _as_rows(of_nodes: Tensor, x: Tensor) -> Tensor:
    return of_nodes.view(-1, *(1,) * (x.dim() - 1))


def operators(ops: Any) -> dict[str, Callable]:
    """Return the operators that dgl.ops lacks, by name."""
    return {
        f"{message}_{name}": _operator(ops, message, name)
        for message in MESSAGES
        for name in _REDUCES
        if not hasattr(ops, f"{message}_{name}")
    }


def _operator(ops: Any, message: str, name: str) -> Callable:
    def operator(g: Any, x: Any, y: Any) -> Any:
        out = reduce(g, message, name, x, y)
        return getattr(ops, f"copy_e_{name}")(g, getattr(ops, message)(g, x, y)) if out is None else out

    operator.__name__ = f"{message}_{name}"
    operator.__doc__ = f"Return the {name} of the messages {message} of every node, as DGL computes it in two steps."
    return operator
