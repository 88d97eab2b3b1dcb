"""The operations that keep a LazyMessage lazy: what asks for its shape and kind, re-viewing, scaling by an edge weight,
and the product of two whose sum over the features is a score per edge. Where one does not fit it answers
NotImplemented, and the operation gets the real messages. Importing this module enters them in lazy.HANDLERS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import report, surroundings
from gnna_plugin.adapters.pyg import consume
from gnna_plugin.adapters.pyg.lazy import HANDLERS, Gather, LazyMessage, with_dims, wrap

_plain = torch._C.DisableTorchFunctionSubclass


def _metadata(func: Callable, args: tuple, kwargs: dict) -> Any:
    lazy = args[0]
    if type(lazy) is not LazyMessage:
        return NotImplemented
    if lazy._gather.pinned:
        return func(lazy._gather.value, *args[1:], **kwargs)
    with _plain():
        return func(*args, **kwargs)


def _new_zeros(func: Callable, args: tuple, kwargs: dict) -> Any:
    zeros = _metadata(func, args, kwargs)
    if zeros is not NotImplemented:
        consume.mark_zeros(zeros)
    return zeros


def _same(func: Callable, args: tuple, kwargs: dict) -> Any:
    """contiguous(): the messages, once computed, are."""
    return args[0] if len(args) == 1 and not kwargs and not args[0]._gather.pinned else NotImplemented


def _view(func: Callable, args: tuple, kwargs: dict) -> Any:
    lazy = args[0]
    if type(lazy) is not LazyMessage or lazy._gather.pinned or lazy._gather.lead or not lazy._gather.foldable:
        return NotImplemented
    gather, edges = lazy._gather, lazy._gather.src.numel()
    try:
        with _plain():
            placeholder = func(*args, **kwargs)
    except (RuntimeError, TypeError, IndexError):
        return NotImplemented  # let the real operation speak
    # With the edges still in front, row-major order leaves only the trailing dimensions re-cut. One edge is ambiguous.
    if edges == 1 or placeholder.dim() == 0 or placeholder.shape[0] != edges or placeholder.dtype != gather.x.dtype:
        return NotImplemented
    viewed = Gather(
        gather.x, gather.weight, gather.src, placeholder.shape, gather.conv, gather.source, gather.index, gather.version
    )
    return wrap(viewed, placeholder)


def _mul(func: Callable, args: tuple, kwargs: dict) -> Any:
    if kwargs or len(args) != 2:
        return NotImplemented
    lazy, other = args if type(args[0]) is LazyMessage else (args[1], args[0])
    if type(other) is LazyMessage:  # the thinner one is the weight
        if other.shape == lazy.shape:
            return _product(lazy._gather, other._gather)
        if other.shape.numel() > lazy.shape.numel():
            lazy, other = other, lazy
        other = other._gather.messages("mul")
    gather = lazy._gather
    if not gather.foldable:
        return NotImplemented
    # A checkpoint inside a message recomputes with real messages, and must then save as many tensors as now.
    if gather.pinned or surroundings.saved_tensor_hooks():
        return NotImplemented
    x, weight = gather.x, gather.weight
    if type(other) in (int, float):
        if weight is None:
            x = x * other
        else:
            weight = weight * other
    else:
        scale = _as_weight(gather, other)
        if scale is None:
            return NotImplemented
        if scale.dtype != x.dtype:  # mixed precision: the product has the weight's wider type
            x = x.to(scale.dtype)
            weight = weight if weight is None else weight.to(scale.dtype)
        trail = gather.shape[1:]
        if weight is None:
            if x.shape[1:] != trail and not gather.lead:
                x = x.reshape(x.size(0), *trail)
            weight = scale
        elif x.shape[1:] == trail or scale.dim() == 1:
            dims = max(weight.dim(), scale.dim())
            weight = with_dims(weight, dims) * with_dims(scale, dims)
        else:
            return NotImplemented
    return wrap(
        Gather(
            x, weight, gather.src, gather.shape, gather.conv, gather.source, gather.index, gather.version, gather.lead
        )
    )


def _as_weight(gather: Gather, other: Any) -> Tensor | None:
    """other as a weight [E, *W] of these messages, or None where it is not one factor per edge (and head, or
    feature)."""
    if type(other) not in (Tensor, torch.nn.Parameter):
        return None
    if (
        other.dim() == 0
        or torch.promote_types(other.dtype, gather.x.dtype) != other.dtype
        or not other.is_floating_point()
    ):
        return None
    if other.device != gather.x.device:
        return None
    if gather.lead:  # [E, 1], or with ones for the batch dimensions
        edges, trailing = gather.shape[gather.lead], len(gather.shape) - gather.lead - 1
        per_edge = (1,) * max(other.dim() - trailing - 1, 0) + (edges,) + (1,) * trailing
        return other.reshape(edges) if other.shape == per_edge and other.dim() <= len(gather.shape) else None
    if other.dim() != len(gather.shape) or other.size(0) != gather.shape[0]:
        return None
    dims = other.dim()
    while dims > 1 and other.size(dims - 1) == 1:
        dims -= 1
    if other.shape[1:dims] != gather.shape[1:dims]:
        return None
    return other if dims == other.dim() else other.reshape(other.shape[:dims])


# ---- scores: the product of what both ends of an edge have, summed over its features --------------------------------


class Product(Gather):
    """The product of two gathers of one shape, unweighted and not yet looked at: x is that of `first`. Its sum over the
    last dimension is one sddmm."""

    foldable = False
    __slots__ = ("first", "second")

    def __init__(self, first: Gather, second: Gather):
        super().__init__(
            first.x, None, first.src, first.shape, first.conv, first.source, first.index, first.version, first.lead
        )
        self.first, self.second = first, second

    def compute(self, operation: str) -> Tensor:
        def then(gather: Gather) -> Tensor:  # what was written to one of them since is no part of the product
            return gather.compute(operation) if gather.changed else gather.messages(operation)

        return then(self.first) * then(self.second)

    def rows(self, gather: Gather) -> Tensor:
        """The features [N, *S] that one of the two gathers."""
        gather.check_version()
        return gather.x.reshape(gather.x.size(0), *self.shape[1:])


def _product(first: Gather, second: Gather) -> LazyMessage | Any:
    for gather in (first, second):
        if gather.value is not None or gather.lead or gather.weight is not None or not gather.foldable:
            return NotImplemented
    same = first.x.dtype == second.x.dtype and first.src.dtype == second.src.dtype
    if not same or len(first.shape) < 2 or surroundings.saved_tensor_hooks():
        return NotImplemented
    # The placeholder, which stands for both, is made of the first: one that has a gradient where there is one.
    # Otherwise of x_j in x_i * x_j, whose plan, by destination, is the aggregation's as well.
    if second.x.requires_grad or not first.x.requires_grad:
        first, second = second, first
    return wrap(Product(first, second))


def _sum(func: Callable, args: tuple, kwargs: dict) -> Any:
    given = {**dict(zip(("input", "dim"), args, strict=False)), **kwargs}
    lazy = given.get("input")
    product = lazy._gather if type(lazy) is LazyMessage else None
    if type(product) is not Product or len(args) > 2 or set(given) != {"input", "dim"}:
        return NotImplemented
    dims, last, gathers = given["dim"], len(product.shape) - 1, (product.first, product.second)
    if dims not in (-1, last, [-1], [last], (-1,), (last,)) or any(g.value is not None for g in (product, *gathers)):
        return NotImplemented
    a, b = map(product.rows, gathers)
    if a.is_cuda and torch.is_autocast_enabled():  # which sums 16 bits in float32
        a, b = (t.float() if t.itemsize == 2 else t for t in (a, b))
    try:
        with product.grad_mode():
            scores = torch.ops.gnna.sddmm(a, b, product.first.src, product.second.src, last - 1, True)
    except ValueError as error:
        raise consume.as_index_error(str(error), product) from None
    report.fused(product.layer)
    return scores


def _getters(*names: str) -> dict:
    return {getattr(Tensor, name).__get__: _metadata for name in names}


HANDLERS.update(
    {
        **_getters(
            "dtype", "device", "layout", "requires_grad", "is_cuda", "is_cpu", "is_leaf", "is_sparse", "is_quantized"
        ),
        **_getters("is_nested", "is_mkldnn", "is_meta", "grad_fn", "_backward_hooks", "is_sparse_csr", "itemsize"),
        **{
            getattr(Tensor, name): _metadata
            for name in (
                "is_floating_point",
                "is_complex",
                "element_size",
                "numel",
                "nelement",
                "get_device",
                "is_inference",
            )
        },
        **{
            getattr(Tensor, name): _metadata for name in ("new_empty", "new_ones", "new_full", "new_tensor", "__hash__")
        },
        torch.is_floating_point: _metadata,
        torch.is_complex: _metadata,
        torch.numel: _metadata,
        Tensor.new_zeros: _new_zeros,
        Tensor.contiguous: _same,
        **{getattr(Tensor, name): _view for name in ("view", "reshape", "unsqueeze", "squeeze", "flatten")},
        **{getattr(torch, name): _view for name in ("reshape", "unsqueeze", "squeeze", "flatten")},
        **{f: _mul for f in (torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__)},
        **{f: _sum for f in (torch.sum, Tensor.sum)},
    }
)
