"""The reductions of lazy messages, each of which becomes one spmm.

PyG reduces messages in two ways: through Aggregation.reduce, which is hooked directly, and through torch's scatter
functions, which PyG's utilities and users' aggregate() call. Both end here. A function returns NotImplemented if the
messages or the reduction do not have a form that the ops support.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric import Index

from gnna_plugin import report, surroundings

from .index_errors import as_index_error
from .lazy import LazyMessage, register

_REDUCES = {"sum": "sum", "add": "sum", "mean": "mean", "max": "max", "amax": "max", "min": "min", "amin": "min"}


def plain_index(index: Any) -> Tensor | None:
    """Return a 1-D index as a plain tensor, or None if the ops do not support it."""
    if isinstance(index, Index):
        index = index.as_tensor()
    if type(index) is not Tensor or index.dim() != 1 or index.dtype not in (torch.int64, torch.int32):
        return None
    return index


def aggregate(lazy: Any, index: Any, num_dst: int, reduce: str) -> Tensor | Any:
    """Reduce lazy messages over their destinations.

    Returns:
        [*B, num_dst, *S], or NotImplemented.

    Raises:
        IndexError: an index is out of range.
        RuntimeError: the features or the weight were modified in place since they were recorded.
    """
    value = lazy._value
    dst = plain_index(index)
    if value.settled or reduce not in _REDUCES or dst is None:
        return NotImplemented
    if dst.numel() != value.src.numel() or dst.dtype != value.src.dtype or dst.device != value.src.device:
        return NotImplemented
    if not value.foldable:
        return value.reduce(dst, num_dst, _REDUCES[reduce])
    reduce, x = _REDUCES[reduce], value.x
    value.check_versions()
    if reduce in ("max", "min") and x.requires_grad and torch.is_grad_enabled():
        x = kept_features(x)
    try:
        out = torch.ops.gnna.spmm(x, value.weight, value.src, dst, num_dst, reduce, True)
    except ValueError as error:
        if not x.is_cuda and str(error).startswith("dst[") and bool((dst < 0).any()):
            return NotImplemented  # a negative destination: PyG does not check for it, torch's scatter raises the error
        raise as_index_error(str(error), value.call, value.x.size(0)) from None
    report.aggregated(value.layer, value.x, value.weight, value.src, dst, out, reduce)
    if value.lead:
        return out.movedim(0, value.lead).contiguous()
    trail = lazy.shape[1:]
    return out if out.shape[1:] == trail else out.view(num_dst, *trail)


def kept_operands(x: Tensor, weight: Tensor | None, reduce: str) -> tuple[Tensor, Tensor | None]:
    """Return x and weight as the reduction of weight * x_j saves them for its backward pass, see kept_features."""
    trained = weight is not None and weight.requires_grad
    if not torch.is_grad_enabled() or not (trained or x.requires_grad):
        return x, weight
    if reduce in ("max", "min"):  # saves both, to find the winners again
        return kept_features(x), None if weight is None else kept_features(weight)
    return kept_features(x) if trained else x, weight


def kept_features(x: Tensor) -> Tensor:
    """Return x in a form that an autograd node can save for the backward pass.

    PyG saves gathered copies, which later writes to x do not change. This gives the same guarantee:

    - x with a gradient is shared copy-on-write, which moves x to other memory at the next write.
    - x without a gradient is copied at once, because a NumPy array or a pointer may write to its memory uncounted. PyG
      keeps one row per edge here.
    - x itself is returned if copy-on-write is not safe or not cheap. If x was written to, the version check then raises
      an error in the backward pass.
    """
    if not x.requires_grad:
        return x.clone()
    if x.is_cuda and (x.is_leaf or surroundings.capturing(x)):
        return x
    return torch.ops.gnna.snapshot(x)


def segment_reduce(layer: str, messages: Tensor, index: Any, num_rows: int, dim: int, reduce: str) -> Tensor | Any:
    """Reduce existing messages along dim.

    Returns:
        [*B, num_rows, *S], or NotImplemented.

    Raises:
        IndexError: an index is out of range, on a GPU.
    """
    rows = plain_index(index)
    if rows is None or reduce not in _REDUCES or rows.numel() != messages.size(dim) or rows.device != messages.device:
        return NotImplemented
    first = messages.movedim(dim, 0) if dim else messages
    try:
        out = torch.ops.gnna.segment_reduce(first, rows, num_rows, _REDUCES[reduce], True)
    except ValueError as error:
        if not messages.is_cuda:
            return NotImplemented  # PyG's own function raises its error
        raise IndexError(str(error)) from None  # Aggregation turns it into PyG's ValueError
    report.reduced(layer, work=messages.numel())
    return out.movedim(0, dim).contiguous() if dim else out


# ---- torch's scatter functions ---------------------------------------------------------------------------------------


def mark_zeros(tensor: Tensor) -> None:
    """Mark a tensor as fresh zeros, which max and min may overwrite.

    With include_self=False, scatter_reduce leaves the target unchanged in rows without messages. spmm sets these rows
    to 0, which is the same only if the target was zeros.
    """
    if not tensor.is_inference():
        tensor._gnna_zeros = tensor._version  # type: ignore[attr-defined]


def _is_fresh_zeros(tensor: Tensor) -> bool:
    return getattr(tensor, "_gnna_zeros", None) == tensor._version if not tensor.is_inference() else False


def _expanded_rows(index: Any, lazy: Any) -> Tensor | None:
    """Return the [E] index that was expanded to the messages' shape.

    Returns:
        None if the columns of the index differ.
    """
    if isinstance(index, Index):
        index = index.as_tensor()
    if type(index) is not Tensor or index.shape != lazy.shape:
        return None
    for dim in range(index.dim() - 1, 0, -1):
        if index.size(dim) == 0 or (index.size(dim) > 1 and index.stride(dim) != 0):
            return None
        index = index.select(dim, 0)
    return index


def _scattered(target: Any, dim: int, index: Tensor | None, lazy: Any, reduce: str) -> Tensor | Any:
    if type(target) is not Tensor or type(lazy) is not LazyMessage or index is None or lazy._value.lead:
        return NotImplemented
    fits = target.dim() == lazy.dim() and target.shape[1:] == lazy.shape[1:] and target.dtype == lazy.dtype
    if not fits or dim not in (0, -target.dim()):
        return NotImplemented
    try:
        return aggregate(lazy, index, target.size(0), reduce)
    except IndexError as error:
        if lazy._value.call.bad_side != "dst":
            raise
        raise RuntimeError(str(error)) from None  # the exception type of torch's scatter functions


def _scatter_add(in_place: bool) -> Callable:
    def handler(func: Callable, args: tuple, kwargs: dict) -> Any:
        if len(args) != 4 or kwargs:
            return NotImplemented
        target, dim, index, lazy = args
        out = _scattered(target, dim, _expanded_rows(index, lazy), lazy, "sum")
        if out is NotImplemented:
            return out
        return target.add_(out) if in_place else target + out

    return handler


def _index_add(in_place: bool) -> Callable:
    def handler(func: Callable, args: tuple, kwargs: dict) -> Any:
        if len(args) != 4 or kwargs.get("alpha", 1) != 1:
            return NotImplemented
        target, dim, index, lazy = args
        out = _scattered(target, dim, plain_index(index), lazy, "sum")
        if out is NotImplemented:
            return out
        return target.add_(out) if in_place else target + out

    return handler


def _scatter_reduce(in_place: bool) -> Callable:
    def handler(
        func: Callable,
        args: tuple,
        kwargs: dict,
        names: tuple[str, ...] = ("self", "dim", "index", "src", "reduce", "include_self"),
    ) -> Any:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        target, lazy = given.get("self"), given.get("src")
        if set(given) != set(names) or given["include_self"] or given["reduce"] not in ("amax", "amin"):
            return NotImplemented
        if type(target) is not Tensor or not _is_fresh_zeros(target):
            return NotImplemented
        out = _scattered(target, given["dim"], _expanded_rows(given["index"], lazy), lazy, given["reduce"])
        if out is NotImplemented:
            return out
        return target.copy_(out) if in_place else out

    return handler


register(
    {
        Tensor.scatter_add_: _scatter_add(in_place=True),
        Tensor.scatter_add: _scatter_add(in_place=False),
        torch.scatter_add: _scatter_add(in_place=False),
        Tensor.index_add_: _index_add(in_place=True),
        Tensor.index_add: _index_add(in_place=False),
        torch.index_add: _index_add(in_place=False),
        Tensor.scatter_reduce_: _scatter_reduce(in_place=True),
        Tensor.scatter_reduce: _scatter_reduce(in_place=False),
        torch.scatter_reduce: _scatter_reduce(in_place=False),
    }
)
