"""The functions that take the place of DGL's. Each validates first; what does not fit is left to DGL, errors too."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from dgl import DGLError
from torch import Tensor

from gnna_plugin import report, settings, surroundings
from gnna_plugin.adapters.dgl import core, graphs

_PLAIN = (Tensor, torch.nn.Parameter)
_OPS = ("copy_lhs", "copy_rhs", "mul")


class _Decided(threading.local):
    """Whether this thread is inside a call that was left to DGL already: the hook beneath need not ask again."""

    left = False


_decided = _Decided()


class Call:
    """A g-SpMM that fits: the graph's edges and the operands, and which features were scalars at first."""

    __slots__ = ("entry", "operands", "scalar_e", "scalar_u", "used")

    def __init__(self, entry: graphs.Entry, operands: core.Operands, used: tuple, scalar_u: bool, scalar_e: bool):
        self.entry, self.operands = entry, operands
        self.used, self.scalar_u, self.scalar_e = used, scalar_u, scalar_e

    def narrowed(self, out: Tensor) -> Tensor:
        """Scalar in, scalar out."""
        u, e = self.used
        return out.squeeze(-1) if (self.scalar_u or not u) and (self.scalar_e or not e) else out


def _fit(gidx: Any, op: str, reduce: str, u: Any, e: Any) -> Call | None:
    """The call in our terms; None, with the reason counted, where it is left to DGL."""
    layer = f"dgl.{op}_{reduce}"
    call = _try_fit(gidx, op, u, e)
    if type(call) is tuple:
        reason, *example = call
        report.left_to_framework(layer, reason, lambda: example[0] if example else "")
        return None
    return call


def _try_fit(gidx: Any, op: str, u: Any, e: Any) -> Call | tuple[str, ...]:
    if op not in _OPS:
        return (f"the binary operation {op}",)
    used = op != "copy_rhs", op != "copy_lhs"
    tensors = [t for t, use in ((u, used[0]), (e, used[1])) if use]
    if any(type(t) not in _PLAIN or t.dim() == 0 or t.layout is not torch.strided for t in tensors):
        return ("features that are no dense tensors",)
    first = tensors[0]
    if any(t.dtype != first.dtype or t.device != first.device for t in tensors):
        return ("operands of different dtypes or devices",)
    dtypes = settings.DTYPES.get(first.device.type, ())
    if first.dtype not in dtypes or (first.dtype == torch.float16 and not first.is_cuda):  # which DGL refuses on a CPU
        return (f"{str(first.dtype).removeprefix('torch.')} features",)
    edges_count, width = gidx.num_edges(0), max(t.numel() // t.size(0) if t.size(0) else 1 for t in tensors)
    if not all(t.numel() or t.size(0) == 0 for t in tensors):
        return ("features without columns",)
    if edges_count * width < settings.current.least_work(first.device.type):
        return "below min_work", f"{edges_count:,} edges x {width}"
    reason = surroundings.reason(first)
    if reason is not None:
        return (reason,)
    try:
        entry = graphs.edges_of(gidx)
    except DGLError:
        return ("a graph whose formats give no list of edges",)
    edges = entry.edges
    rows_fit = (not used[0] or u.size(0) == edges.num_src) and (not used[1] or e.size(0) == edges.dst.numel())
    if not rows_fit or edges.dst.device != first.device:
        return ("features that do not fit the graph",)
    scalar_u, scalar_e = used[0] and u.dim() == 1, used[1] and e.dim() == 1
    operands = core.prepare(op, u.unsqueeze(-1) if scalar_u else u, e.unsqueeze(-1) if scalar_e else e)
    if isinstance(operands, str):
        return (operands,)
    return Call(entry, operands, used, scalar_u, scalar_e)


@contextlib.contextmanager
def _dgl_errors() -> Iterator[None]:
    """A graph whose edges name nodes that it does not have, which DGL's own kernels would read past, is a DGLError."""
    try:
        yield
    except ValueError as error:
        raise DGLError(f"the graph's edges do not fit its nodes: {error}") from None


def _count(layer: str, call: Call, out: Tensor, reduce: str) -> None:
    operands, edges = call.operands, call.entry.edges
    if operands.x is None:  # messages alone: nothing was decided but the segments' own kernel
        report.fused(layer)
    else:
        report.aggregated(layer, operands.x, operands.weight, edges.src, edges.dst, out, reduce)


def gspmm_hook(original: Callable) -> Callable:
    """dgl.backend.pytorch.sparse._gspmm: no gradients here, and winners beside the result of max and min."""

    @functools.wraps(original)
    def _gspmm(gidx, op, reduce_op, u, e):
        if (
            _decided.left
            or not settings.active()
            or gidx.number_of_etypes() != 1
            or reduce_op not in ("sum", "max", "min")
        ):
            return original(gidx, op, reduce_op, u, e)
        call = _fit(gidx, op, reduce_op, u, e)
        if call is None:
            return original(gidx, op, reduce_op, u, e)
        edges, used = call.entry.edges, call.used
        with torch.no_grad(), _dgl_errors():
            if reduce_op == "sum":
                out, arg_u, arg_e = core.aggregate(edges, call.operands, "sum"), None, None
            else:
                positions = call.entry.positions() if call.operands.messages is not None else None
                out, arg_u, arg_e = core.extremum(edges, call.operands, reduce_op, positions)
                arg_u = (arg_u.squeeze(-1) if call.scalar_u else arg_u) if used[0] else None
                arg_e = (arg_e.squeeze(-1) if call.scalar_e else arg_e) if used[1] else None
        _count(f"dgl.{op}_{reduce_op}", call, out, reduce_op)
        return call.narrowed(out), (arg_u, arg_e)

    return _gspmm


def ops_gspmm_hook(original: Callable) -> Callable:
    """dgl.ops.gspmm: sum and mean with their gradients in C++; the rest goes on to _gspmm."""

    @functools.wraps(original)
    def gspmm(g, op, reduce_op, lhs_data, rhs_data):
        fits = settings.active() and reduce_op in ("sum", "mean") and g._graph.number_of_etypes() == 1
        if not fits or torch.is_autocast_enabled():  # DGL casts by itself under CUDA autocast
            return original(g, op, reduce_op, lhs_data, rhs_data)
        call = _fit(g._graph, op, reduce_op, lhs_data, rhs_data)
        if call is None:
            _decided.left = True
            try:
                return original(g, op, reduce_op, lhs_data, rhs_data)
            finally:
                _decided.left = False
        with _dgl_errors():
            out = core.aggregate(call.entry.edges, call.operands, reduce_op)
        _count(f"dgl.{op}_{reduce_op}", call, out, reduce_op)
        return call.narrowed(out)

    return gspmm
