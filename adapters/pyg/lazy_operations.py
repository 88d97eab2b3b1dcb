"""The operations that keep a LazyMessage lazy: metadata queries and views.

Importing this module registers them. A handler that cannot keep the message lazy returns
NotImplemented, and the operation then receives the real messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import consume
from .lazy import LazyMessage, as_handle, register

_plain = torch._C.DisableTorchFunctionSubclass
_arm = torch.ops.gnna.arm.default


def _metadata(func: Callable, args: tuple, kwargs: dict) -> Any:
    """Answer from the handle itself."""
    if type(args[0]) is not LazyMessage:
        return NotImplemented
    with _plain():
        return func(*args, **kwargs)


def _of_features(func: Callable, args: tuple, kwargs: dict) -> Any:
    """Answer from the features, which agree with the messages here.

    Reading the device of the handle would settle it.
    """
    if type(args[0]) is not LazyMessage:
        return NotImplemented
    return func(args[0]._value.x.detach(), *args[1:], **kwargs)


def _new_zeros(func: Callable, args: tuple, kwargs: dict) -> Any:
    zeros = _of_features(func, args, kwargs)
    if zeros is not NotImplemented:
        consume.mark_zeros(zeros)
    return zeros


def _expand_as(func: Callable, args: tuple, kwargs: dict) -> Any:
    """Expand a plain tensor, such as an index, to the shape of the messages."""
    if len(args) != 2 or kwargs or type(args[0]) is LazyMessage:
        return NotImplemented
    return args[0].expand(args[1].shape)


def _like(func: Callable, args: tuple, kwargs: dict) -> Any:
    """zeros_like() and similar: they use only the messages' shape, dtype and device."""
    if len(args) != 1 or type(args[0]) is not LazyMessage:
        return NotImplemented
    out = func(args[0]._value.x.detach().new_empty(()).expand(args[0].shape), **kwargs)
    if func is torch.zeros_like:
        consume.mark_zeros(out)
    return out


def _same(func: Callable, args: tuple, kwargs: dict) -> Any:
    """contiguous(): return the same handle, because computed messages are contiguous."""
    return args[0] if len(args) == 1 and not kwargs and not args[0]._value.lead else NotImplemented


def _view(func: Callable, args: tuple, kwargs: dict) -> Any:
    lazy = args[0]
    if type(lazy) is not LazyMessage or lazy._value.settled or lazy._value.lead or not lazy._value.foldable:
        return NotImplemented
    if not torch.is_grad_enabled() and lazy.requires_grad:  # the view would have no gradient, but its value has one
        return NotImplemented
    value, edges = lazy._value, lazy._value.src.numel()
    with _plain():
        _arm(lazy, False)  # the view reads strides, which would settle an armed handle
        try:
            view = func(*args, **kwargs)
        except (RuntimeError, TypeError, IndexError):
            return NotImplemented  # the operation on real messages raises its own error
        finally:
            _arm(lazy, True)
    if view is lazy:
        return lazy
    # If the first dimension is still the edges, a row-major view can only have regrouped the trailing dimensions. With
    # one edge, the first dimension could be another one of size 1.
    if edges == 1 or view.dim() == 0 or view.shape[0] != edges or view.dtype != value.x.dtype:
        return NotImplemented
    return as_handle(view, value)


def _getters(*names: str) -> list[Callable]:
    return [getattr(Tensor, name).__get__ for name in names]


register(
    {
        **{
            f: _metadata  # type: ignore[misc]
            for f in (
                *_getters("dtype", "layout", "requires_grad", "is_leaf", "is_sparse", "is_quantized", "is_nested"),
                *_getters("is_mkldnn", "grad_fn", "_backward_hooks", "is_sparse_csr", "itemsize", "shape", "ndim"),
                *_getters("_version", "output_nr"),
                *(Tensor.is_floating_point, Tensor.is_complex, Tensor.element_size, Tensor.numel, Tensor.nelement),
                *(Tensor.is_inference, Tensor.__hash__, Tensor.size, Tensor.dim, Tensor.ndimension, Tensor.__len__),
                *(torch.is_floating_point, torch.is_complex, torch.numel),
            )
        },
        **{
            f: _of_features  # type: ignore[misc]
            for f in (
                *_getters("device", "is_cuda", "is_cpu", "is_meta"),
                *(Tensor.get_device, Tensor.new_empty, Tensor.new_ones, Tensor.new_full, Tensor.new_tensor),
            )
        },
        Tensor.new_zeros: _new_zeros,
        Tensor.expand_as: _expand_as,
        **{f: _like for f in (torch.zeros_like, torch.ones_like, torch.empty_like)},
        Tensor.contiguous: _same,
        **{getattr(Tensor, name): _view for name in ("view", "reshape", "unsqueeze", "squeeze", "flatten")},
        **{getattr(torch, name): _view for name in ("reshape", "unsqueeze", "squeeze", "flatten")},
    }
)
