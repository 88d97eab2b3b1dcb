"""The checks that every hook runs before it takes a call from DGL: the size, and what the ops support."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from dgl import DGLError
from torch import Tensor

from gnna_plugin import report, settings, surroundings

from . import core, graphs

_PLAIN = (Tensor, torch.nn.Parameter)
Reason = tuple[str, ...]  # (why a call is left to DGL, optionally the details of this call)


# On a CPU, sums and means of 100 to 2,000 edges x 8 to 64 take DGL 1.2 to 2.5 times as long as the plug-in, because its
# work in Python is longer; other calls take the same. But an edge list repays only if the graph is used again, and the
# layers of a sampled block use it one to four times.
_FIRST_USES = 8


def too_small(known: graphs.Known, tensors: list[Tensor], gains: bool = False) -> Reason | None:
    """Return a reason if the call is too small to gain, else None.

    This is the first check and must be fast: on a small graph its time is the whole cost of the plug-in.

    Args:
        gains: whether calls below min_work gain on a CPU too, after the first uses of the graph. If the user set
            min_work, it holds all the same.
    """
    width = 1
    for t in tensors:
        rows = t.shape[0] if type(t) in _PLAIN and t.dim() else 0
        if rows:
            width = max(width, t.numel() // rows)
    on_gpu = tensors[0].is_cuda
    least = settings.current.least_work("cuda" if on_gpu else "cpu")
    if known.num_edges * width >= least:
        return None
    reason = report.below(least)
    if gains and not on_gpu and settings.current.min_work is None:
        if known.small_uses >= _FIRST_USES:
            return None
        known.small_uses += 1
        reason = report.COMES_ONCE
    return reason, f"{known.num_edges:,} edges x {width}"


def unfit(tensors: list[Any]) -> Reason | None:
    """Return a reason if the ops do not support these tensors here, else None.

    "Here" includes the context: CUDA graph capture, tracing and transforms (see surroundings.reason).
    """
    if any(type(t) not in _PLAIN or t.dim() == 0 or t.layout is not torch.strided for t in tensors):
        return ("features that are not dense tensors",)
    first = tensors[0]
    if any(t.dtype != first.dtype or t.device != first.device for t in tensors):
        return ("operands of different dtypes or devices",)
    dtypes = settings.DTYPES.get(first.device.type, ())
    if first.dtype not in dtypes or (first.dtype == torch.float16 and not first.is_cuda):  # DGL rejects it on a CPU
        return (f"{str(first.dtype).removeprefix('torch.')} features",)
    if not all(t.numel() or t.size(0) == 0 for t in tensors):
        return ("features without columns",)
    reason = surroundings.reason(first)
    return None if reason is None else (reason,)


def unfit_ends(known: graphs.Known, a: Any, b: Any, least_width: int, least_on_gpu: int) -> Reason | None:
    """Return a reason if an operation on the features of two ends of the edges is left to DGL, else None.

    Args:
        least_width, least_on_gpu: narrowest feature row, in elements, for which it is faster than DGL's, by device.
    """
    if not known.one_type:
        return ("several edge types at once",)
    reason = too_small(known, [a, b]) or unfit([a, b])
    if reason is not None:
        return reason
    if a.shape[1:] != b.shape[1:]:
        return ("operands of different shapes",)
    width = a.numel() // max(a.size(0), 1)
    least = least_on_gpu if a.is_cuda else least_width
    return ("features too narrow to gain", f"{width} elements") if width < least else None


def entry_for(gidx: Any, ends: dict[str, list[Tensor]]) -> graphs.Entry | Reason:
    """Return the graph's edges, or a reason if the tensors do not fit them.

    Args:
        ends: feature tensors by kind: "u" with one row per source node, "v" per destination node, "e" per edge.
    """
    try:
        entry = graphs.edges_of(gidx)
    except DGLError:
        return ("a graph whose formats provide no edge list",)
    edges: core.Edges = entry.edges
    rows = {"u": edges.num_src, "v": edges.num_dst, "e": edges.dst.numel()}
    if any(t.size(0) != rows[end] or t.device != edges.dst.device for end, group in ends.items() for t in group):
        return ("features whose number of rows or device differs from the graph's",)
    return entry


def left(layer: str, reason: Reason) -> None:
    """Count a call that is left to DGL."""
    report.left_to_framework(layer, reason[0], lambda: reason[1] if len(reason) > 1 else "")


@contextlib.contextmanager
def dgl_errors() -> Iterator[None]:
    """Turn the ops' ValueError into a DGLError.

    It occurs if edges refer to nodes that the graph does not have. DGL's own kernels would read out of bounds.
    """
    try:
        yield
    except ValueError as error:
        raise DGLError(f"the graph's edges do not fit its nodes: {error}") from None
