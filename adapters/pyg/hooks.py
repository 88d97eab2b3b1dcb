"""The replacements for PyG's gather and reduction, and the checks that decide whether a call is left to PyG.

A replacement must reach names of this module through closure variables only (see patching.stand_in). Under
torch.compile it calls PyG's function.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import report, settings, surroundings
from gnna_plugin.patching import stand_in

from . import compiled_boundary, consume, index_errors, layer_call, own_code, small_graphs
from .compiled import trace
from .lazy import LazyMessage, lift, settle_all

_MOST_SCORES = 16
_PLAIN = (Tensor, torch.nn.Parameter)
# Aggregation module -> whether the user wants its layer accelerated. An aggregation module does not know its layer.
_choices: weakref.WeakKeyDictionary[torch.nn.Module, bool] = weakref.WeakKeyDictionary()
_MESSAGE_HOOKS = (
    "_message_forward_pre_hooks",
    "_message_forward_hooks",
    "_aggregate_forward_pre_hooks",
    "_edge_update_forward_pre_hooks",
    "_edge_update_forward_hooks",
)


def why_not(conv: Any, src: Any, index: Any, call: layer_call.Call | None = None) -> str | None:
    """Return why this gather is left to PyG, or None if it may become lazy.

    Args:
        call: the running call of the layer, or None if it has not begun. None skips the checks that need a call.

    Returns:
        A reason that status() shows to the user, or None.
    """
    reason = _unfit(src, index)
    if reason is not None:
        return reason
    if not -src.dim() <= conv.node_dim < src.dim():
        return "features without the layer's node dimension"
    rows: Any = consume.plain_index(index)  # not None, because the ops support the index
    reason = surroundings.reason(src, rows, (rows, src.size(conv.node_dim))) or _recomputed()
    if reason is not None:
        return reason
    if index.device != src.device:
        return "features and indices on different devices"
    if conv.explain:
        return "explain mode"
    attributes = conv.__dict__
    for name in _MESSAGE_HOOKS:
        if attributes[name]:
            return "hooks on the layer's messages"
    if not _chosen(conv):
        return report.EXCLUDED
    if call is not None and compiled_boundary.dynamo_listens():
        return "torch.compile around the layer"
    if call is not None and own_code.asks_for_types(conv):
        return "its code compares types of tensors"
    if call is not None and src.is_inference() and not call.runs_own_code():
        return "features made in inference mode, where later writes to them cannot be detected"
    return None if index.numel() and src.numel() else "no edges or no features"


def _chosen(conv: Any) -> bool:
    """Return whether the user wants this layer accelerated.

    The answer is recorded for the aggregation modules of the layer.
    """
    chosen = conv.__dict__.get("gnna", True) and settings.current.chooses(type(conv).__name__)
    if (not chosen or _choices) and conv.aggr_module is not None:
        _choices.update((module, chosen) for module in conv.aggr_module.modules())
    return chosen


def _unfit(values: Any, index: Any) -> str | None:
    """Return what the kernels do not support about these operands, or None."""
    if type(values) not in _PLAIN or consume.plain_index(index) is None:
        return f"features or indices of type {type(values).__name__}, {type(index).__name__}"
    if values.dtype not in settings.DTYPES.get(values.device.type, ()):
        return f"{str(values.dtype).removeprefix('torch.')} features"
    if values.layout is not torch.strided or values.dim() == 0:
        return "features that are not a dense tensor with rows"
    return None


def takes(values: Any, index: Any, num_rows: int | None) -> bool:
    """Return whether the ops can reduce these values here to num_rows rows.

    The values exist already and have one row per entry of the index.
    """
    if _unfit(values, index) is not None:
        return False
    rows: Any = consume.plain_index(index)  # not None, because the ops support the index
    return surroundings.reason(values, segments=None if num_rows is None else (rows, num_rows)) is None


def current_layer_is_chosen() -> bool:
    """Return whether the user wants the layer that runs on this thread accelerated."""
    call = layer_call.current()
    return call is None or _chosen(call.layer)


def _recomputed() -> str | None:
    return "saved-tensor hooks (activation checkpointing)" if surroundings.saved_tensor_hooks() else None


def _left_as_small(conv: Any, src: Any, index: Any, call: layer_call.Call | None) -> bool:
    if not (isinstance(src, Tensor) and isinstance(index, Tensor)) or surroundings.tracing():
        return False
    edges, width = index.numel(), _width(conv, src)
    pays = call is not None and call.pays
    work, cuda = edges * width, src.is_cuda
    if not edges:
        return False
    reason = small_graphs.too_small(work, index, cuda, pays) or small_graphs.too_small_to_compose(conv, work, cuda)
    if reason is None:
        return False
    report.left_to_framework(type(conv).__name__, reason, lambda: f"{edges:,} edges x {width}", work)
    return True


def _work(conv: Any, src: Any, index: Any) -> int:
    """Return the elements of a gather that is left to PyG, or 0 if the operands are unusual."""
    if not (isinstance(src, Tensor) and isinstance(index, Tensor)) or surroundings.tracing():
        return 0
    return index.numel() * _width(conv, src)


def _width(conv: Any, src: Tensor) -> int:
    """Return the elements per node of a layer's features, or 0 if they have no node dimension."""
    shape, dim = src.shape, conv.node_dim
    nodes = shape[dim] if -len(shape) <= dim < len(shape) else 0
    return src.numel() // nodes if nodes else 0


def _is_score(conv: Any, src: Tensor) -> bool:
    """Return whether the features are a few scores per node, such as those of GATConv's heads.

    An edge_updater adds or scales them. No product of two gathers is worth fusing at this width.
    """
    dims = src.dim()
    return (dims == 1 or (dims == 2 and src.size(1) <= _MOST_SCORES)) and conv.node_dim in (0, -dims)


def index_select_hook(original: Callable) -> Callable:
    """Replace MessagePassing._index_select: return x[index] as a lazy message.

    A gather that fails a check is left to PyG.
    """
    compiling, ensure_boundary, thread = torch.compiler.is_compiling, compiled_boundary.ensure, layer_call.thread
    traced = trace.gather

    def gather(conv: Any, src: Any, index: Any) -> Any:
        if type(src) is LazyMessage:
            src._value.settle("index_select")
        if not settings.active():
            return original(conv, src, index)
        ensure_boundary()
        call = layer_call.current()
        if call is None:
            layer_call.rebind(conv)
        if _left_as_small(conv, src, index, call):
            return original(conv, src, index)
        reason = why_not(conv, src, index, call) if call is not None else "gathered outside propagate()"
        if reason is not None:
            report.left_to_framework(type(conv).__name__, reason, work=_work(conv, src, index))
            return original(conv, src, index)
        rows: Any = consume.plain_index(index)  # not None, because why_not() accepted the index
        if call is not None and call.updates_edges and _is_score(conv, src):
            return index_errors.gather(conv, src, index, rows, call)
        return lift(src, rows, conv, index, call)

    def _index_select(self, src, index):
        if compiling():
            out = traced(self, src, index)
            return original(self, src, index) if out is None else out
        if thread.left_to_framework:
            return original(self, src, index)
        return gather(self, src, index)

    return stand_in(_index_select, original)


def reduce_hook(original: Callable) -> Callable:
    """Replace Aggregation.reduce.

    Lazy messages are reduced by one spmm, existing messages by a segment reduction on a cached permutation.
    """
    compiling, thread, scattered = torch.compiler.is_compiling, layer_call.thread, small_graphs.scattered
    traced = trace.reduce

    def fused(aggregation: Any, x: Any, index: Any, dim_size: int | None, dim: int, reduce: str) -> Any:
        if index is None or not -x.dim() <= dim < x.dim():
            return NotImplemented
        dim %= x.dim()
        if type(x) is LazyMessage:
            if dim != x._value.lead:
                return NotImplemented
            return consume.aggregate(x, index, num_rows(index, dim_size), reduce)
        call = layer_call.current()
        if not settings.active() or small_graphs.is_small(x, index, call is not None and call.pays):
            return NotImplemented
        if not takes(x, index, dim_size):
            return NotImplemented
        if not _choices.get(aggregation, True):
            return NotImplemented
        layer = type(aggregation if call is None else call.layer).__name__
        return consume.segment_reduce(layer, x, index, num_rows(index, dim_size), dim, reduce)

    def reduce(self, x, index=None, ptr=None, dim_size=None, dim=-2, reduce="sum"):
        if compiling():
            out = traced(x, index, dim_size, dim, reduce) if ptr is None else None
            return original(self, x, index, ptr, dim_size, dim, reduce) if out is None else out
        if thread.left_to_framework:
            out = scattered(x, index, dim_size, dim, reduce) if ptr is None else NotImplemented
            return original(self, x, index, ptr, dim_size, dim, reduce) if out is NotImplemented else out
        out = fused(self, x, index, dim_size, dim, reduce)
        return original(self, x, index, ptr, dim_size, dim, reduce) if out is NotImplemented else out

    return stand_in(reduce, original)


def num_rows(index: Tensor, dim_size: int | None) -> int:
    """Return the number of output rows of a reduction, by PyG's rule."""
    if dim_size is not None:
        return dim_size
    return int(index.max()) + 1 if index.numel() > 0 else 0


def boundary(original: Callable, name: str) -> Callable:
    """Replace a __call__: settle the lazy messages in its arguments first.

    It is for calls into code that bypasses a tensor's Python class.
    """

    def __call__(self, *args, **kwargs):
        settle_all((args, kwargs), name)
        return original(self, *args, **kwargs)

    return __call__


def function_boundary(original: Callable) -> Callable:
    """Replace the step of autograd.Function.apply that sees its arguments first.

    All lazy messages in the arguments are settled, because the function could save a lazy message for the backward pass
    without a version to check.
    """

    def unwrap_dead_wrappers(args):
        settle_all(args, "autograd.Function")
        return original(args)

    return unwrap_dead_wrappers
