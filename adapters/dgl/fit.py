"""What every hook asks before it takes a call from DGL: is it large enough, and can the ops do it here and now?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from dgl import DGLError
from torch import Tensor

from gnna_plugin import report, settings, surroundings
from gnna_plugin.adapters.dgl import core, graphs

_PLAIN = (Tensor, torch.nn.Parameter)
Reason = tuple[str, ...]  # why a call is left to DGL, and the particulars of this case


def below_min_work(num_edges: int, tensors: list[Tensor]) -> Reason | None:
    """Asked first and answered fast: on a small graph the time of this question is what the plug-in costs."""
    width = 1
    for t in tensors:
        rows = t.shape[0] if type(t) in _PLAIN and t.dim() else 0
        if rows:
            width = max(width, t.numel() // rows)
    if num_edges * width >= settings.current.least_work("cuda" if tensors[0].is_cuda else "cpu"):
        return None
    return "below min_work", f"{num_edges:,} edges x {width}"


def unfit(tensors: list[Any]) -> Reason | None:
    """What the ops do not take: feature tensors of a kind, or circumstances, that are DGL's."""
    if any(type(t) not in _PLAIN or t.dim() == 0 or t.layout is not torch.strided for t in tensors):
        return ("features that are no dense tensors",)
    first = tensors[0]
    if any(t.dtype != first.dtype or t.device != first.device for t in tensors):
        return ("operands of different dtypes or devices",)
    dtypes = settings.DTYPES.get(first.device.type, ())
    if first.dtype not in dtypes or (first.dtype == torch.float16 and not first.is_cuda):  # which DGL refuses on a CPU
        return (f"{str(first.dtype).removeprefix('torch.')} features",)
    if not all(t.numel() or t.size(0) == 0 for t in tensors):
        return ("features without columns",)
    reason = surroundings.reason(first)
    return None if reason is None else (reason,)


def entry_for(gidx: Any, ends: dict[str, list[Tensor]]) -> graphs.Entry | Reason:
    """The graph's edges, if the tensors fit them: those under "u" have a row per source, "v" per destination, "e" per
    edge."""
    try:
        entry = graphs.edges_of(gidx)
    except DGLError:
        return ("a graph whose formats give no list of edges",)
    edges: core.Edges = entry.edges
    rows = {"u": edges.num_src, "v": edges.num_dst, "e": edges.dst.numel()}
    if any(t.size(0) != rows[end] or t.device != edges.dst.device for end, group in ends.items() for t in group):
        return ("features that do not fit the graph",)
    return entry


def left(layer: str, reason: Reason) -> None:
    """Counts a call that DGL keeps."""
    report.left_to_framework(layer, reason[0], lambda: reason[1] if len(reason) > 1 else "")


@contextlib.contextmanager
def dgl_errors() -> Iterator[None]:
    """A graph whose edges name nodes that it does not have, which DGL's own kernels would read past, is a DGLError."""
    try:
        yield
    except ValueError as error:
        raise DGLError(f"the graph's edges do not fit its nodes: {error}") from None
