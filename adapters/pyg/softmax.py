"""Replaces torch_geometric.utils.softmax, the normalisation of attention over the edges of a node, by one kernel.

PyG's own function runs two scatters, two gathers, an exponential and a division, each over all edges, and as many
operations again in the backward pass. The softmax of wide gathered features, as SoftmaxAggregation computes it, stays
lazy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import report, settings
from gnna_plugin.patching import Patches, stand_in

from . import consume, hooks, small_graphs
from .compiled import trace
from .lazy import LazyMessage, Value
from .lazy_operands import as_form, count_moved, detached, pair
from .lazy_pairs import Form, Pair, Term, same_index

# Narrower scores, such as those of attention heads, are few, and are weights of an spmm once they exist.
_LEAST_LAZY_WIDTH = 16
_TINY = 1e-16  # PyG adds it to the sum of every row
_patches = Patches()


def _softmax_hook(original: Callable) -> Callable:
    compiling, traced = torch.compiler.is_compiling, trace.softmax

    def fused(src: Any, index: Any, ptr: Any, num_nodes: int | None, dim: int) -> Tensor | None:
        if type(src) is LazyMessage:
            out = _of_lazy(src, index, num_nodes, dim) if ptr is None else None
            if out is not None:
                return out
            src._value.settle("softmax")
        if ptr is not None or not settings.active() or type(src) is not Tensor:
            return None
        if small_graphs.is_small_softmax(src):
            return None
        rows = consume.plain_index(index)
        if rows is None or not hooks.takes(src, index, num_nodes):
            return None
        if dim not in (0, -src.dim()) or rows.numel() != src.size(0) or rows.device != src.device:
            return None
        if not hooks.current_layer_is_chosen():
            return None
        try:
            out = torch.ops.gnna.segment_softmax(src, rows, hooks.num_rows(rows, num_nodes), True)
        except ValueError as error:
            if not src.is_cuda:
                return None  # PyG's own function raises its error
            raise IndexError(str(error)) from None
        report.reduced("softmax", work=src.numel())
        return out

    def softmax(src, index=None, ptr=None, num_nodes=None, dim=0):
        if not compiling():
            out = fused(src, index, ptr, num_nodes, dim)
        else:
            out = traced(src, index, num_nodes, dim) if ptr is None else None
        return out if out is not None else original(src, index, ptr, num_nodes, dim)

    return stand_in(softmax, original)


def _of_lazy(scores: Any, index: Any, num_nodes: int | None, dim: int) -> Any:
    """Return the softmax of gathered scores as a lazy message, exp(s_j - max_i) / sum_i, or None."""
    value, dst = scores._value, consume.plain_index(index)
    found = as_form(scores) if type(value) is Value and dim in (0, -len(scores.shape)) else None
    if found is None or dst is None or dst.numel() != scores.shape[0] or dst.device != value.src.device:
        return None
    if dst.dtype != value.src.dtype or same_index(dst, value.src) or math.prod(scores.shape[1:]) < _LEAST_LAZY_WIDTH:
        return None
    value.check_versions()
    form, bases = found
    rows, (term,) = hooks.num_rows(dst, num_nodes), form.terms
    try:
        most = torch.ops.gnna.spmm(term.features.detach(), None, value.src, dst, rows, "max", True)
    except ValueError:
        return None  # an index out of range: PyG's own functions raise their errors
    shape = tuple(scores.shape)
    form = detached(Form((Term(dst, -most), term), function="exp"))
    total = Pair(value, shape, form, bases).reduced(dst, rows, "sum")
    if total is NotImplemented:
        return None
    count_moved(value, "softmax")
    return pair(value, shape, form._replace(factors=(Term(dst, 1 / (total + _TINY)),)), bases)


def install() -> None:
    """Replace PyG's softmax in every module of PyG that imported it by name."""
    from torch_geometric.utils import softmax

    _patches.replace_everywhere("torch_geometric", softmax, _softmax_hook(softmax))


def uninstall() -> None:
    """Restore PyG's own function in every module that holds ours."""
    _patches.undo()
