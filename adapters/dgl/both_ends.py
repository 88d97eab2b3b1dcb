"""Sums and means of messages of both ends of an edge, such as u_add_v, which DGL computes edge by edge first.

update_all() looks for an operator of dgl.ops with the name of the message and the reduction, u_add_v_sum. DGL has
those of u and e only; for the others it stores all messages, [E, *S], and then reduces them. The plug-in adds the
missing operators. Each is one pair_reduce, which stores nothing of the size of the edges, in either direction. A call
that does not fit is left to DGL's two steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import report, settings

from . import fit, graphs
from .core import Edges

# Narrowest feature row, in elements, for which one pass is faster than DGL's two (benchmarks/dgl_edges.py).
LEAST_WIDTH = 16
_REDUCES = ("sum", "mean")
# Products of u and e are missing, because they are weighted sums (hooks.py).
MESSAGES = tuple(
    f"{lhs}_{op}_{rhs}"
    for lhs in "uve"
    for rhs in "uve"
    for op in ("add", "sub", "mul")
    if lhs != rhs and (op != "mul" or "v" in (lhs, rhs))
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
    if type(found) is tuple:
        fit.left(layer, found)
        return None
    report.fused(layer)
    return found


def _try_reduce(g: Any, message: str, reduce_op: str, lhs: Any, rhs: Any) -> Tensor | fit.Reason:
    first, op, second = message.split("_")
    known, tensors = graphs.known(g._graph), [lhs, rhs]
    if not known.one_type:
        return ("several edge types at once",)
    if torch.is_autocast_enabled():
        return ("autocast",)  # DGL casts the operands
    reason = fit.too_small(known, tensors) or fit.unfit(tensors)
    if reason is not None:
        return reason
    if lhs.shape[1:] != rhs.shape[1:]:
        return ("operands of different shapes",)
    width = lhs.numel() // max(lhs.size(0), 1)
    if width < LEAST_WIDTH:
        return "features too narrow to gain", f"{width} elements"
    entry = fit.entry_for(g._graph, {first: [lhs], second: [rhs]})
    if isinstance(entry, tuple):
        return entry
    with fit.dgl_errors():
        return _reduced(entry.edges, op, {first: lhs, second: rhs}, negative=second, reduce_op=reduce_op)


def _reduced(edges: Edges, op: str, ends: dict[str, Tensor], negative: str, reduce_op: str) -> Tensor:
    """Reduce the messages of one operation on two of the ends u, v and e."""
    sign, ends, factor = 1, dict(ends), None
    if op == "sub":
        if negative == "e":  # u - e = -(e - u), because u has fewer rows than e
            sign, negative = -1, "u" if "u" in ends else "v"
        ends[negative] = -ends[negative]
    elif op == "mul":
        factor = ends.pop("v")  # multiplies the reduced row
    out = torch.ops.gnna.pair_reduce(
        ends.get("v"), ends.get("u"), ends.get("e"), None, factor, None, edges.src, edges.dst, edges.num_src,
        edges.num_dst, "identity", 0.0, 0, reduce_op, True,
    )  # fmt: skip
    return out if sign > 0 else -out


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
