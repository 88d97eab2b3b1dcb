"""Products of lazy messages.

A product with a weight per edge is a weighted gather and stays lazy. The product of two gathers of one shape stays
lazy until it is summed over the features, which gives a score per edge (one sddmm). A product is a separate value,
fixed when it is created.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import report, surroundings

from . import consume
from .index_errors import as_index_error
from .lazy import LazyMessage, Value, new_handle, register, with_dims
from .small_graphs import mark_composed

_plain = torch._C.DisableTorchFunctionSubclass


class Product(Value):
    """The value factor * scale.

    factor is a handle; scale is a tensor, a number or another handle. Both are kept if a gradient may be recorded, else
    they are None. To settle a product that records a gradient, the factors are settled first and the product is
    computed from them, so that hooks on the factors receive its gradient as in PyG.
    """

    __slots__ = ("factor", "scale")

    def __init__(self, like: Value, x: Tensor, weight: Tensor | None, factor: Tensor | None, scale: Any):
        if x.requires_grad and not torch.is_grad_enabled():
            x = x.detach()
        super().__init__(x, like.src, like.conv, like.source, like.index, like.version, like.lead, like.call)
        self.weight, self.factor, self.scale, self.computed = weight, factor, scale, like.computed

    def settle(self, operation: str) -> None:
        self._settle_factors(operation)
        super().settle(operation)

    def _settle_factors(self, operation: str) -> None:
        if self.factor is None:
            return
        if not self._wants_factors():
            self.factor = self.scale = None
            return
        for lazy in (self.factor, self.scale):
            if type(lazy) is LazyMessage:
                lazy._value.settle(operation)  # also settles the products of that value

    def _join_graph(self, handles: Sequence[Tensor]) -> None:
        factor, scale, self.factor, self.scale = self.factor, self.scale, None, None
        handle = next((h for h in handles if factor is not None and h.shape == factor.shape), None)
        if handle is not None:
            with surroundings.outside_transforms(), torch.enable_grad():
                _Multiplied.apply(handle, factor, scale)

    def _wants_factors(self) -> bool:
        # Under saved-tensor hooks the graph must not grow, because a checkpoint inside message() counts saved tensors.
        # Below autograd, the operation has already connected to the placeholder in the graph. The gradient of the
        # placeholder (`lift`) is right too.
        return self._is_recorded() and not (self.lead or surroundings.saved_tensor_hooks() or _below_autograd())

    def _is_recorded(self) -> bool:
        with _plain():
            return any((h := ref()) is not None and h.requires_grad for ref in self.handles)

    def compute(self) -> Tensor:
        if self.factor is None:
            return super().compute()
        self.check_versions()
        return self.factor * self.scale


class PairProduct(Product):
    """The product of two unweighted gathers of one shape. Its x is the x of `first`."""

    foldable = False
    __slots__ = ("first", "recorded", "second", "shape")

    def __init__(self, first: LazyMessage, second: LazyMessage):
        super().__init__(first._value, first._value.x, None, first, second)
        self.first, self.second, self.shape = first._value, second._value, first.shape
        self.recorded = torch.is_grad_enabled()

    def _wants_factors(self) -> bool:
        if not self._is_recorded():
            return False
        if _below_autograd():
            raise RuntimeError(
                f"{self.layer}: an operation in C++ received a product of gathered features, to which it cannot pass "
                "the gradient; give it a copy, (x_i * x_j).clone(), or exclude the layer with `conv.gnna = False`"
            )
        return True

    def compute(self) -> Tensor:
        if self.factor is not None:
            return self.factor * self.scale
        first, second = (v.compute().reshape(v.src.numel(), *self.shape[1:]) for v in (self.first, self.second))
        return first.mul_(second)

    def rows(self, value: Value) -> Tensor:
        """Return the features [N, *S] that one of the two values gathers."""
        value.check_versions()
        x = value.x if self.recorded else value.x.detach()
        return x.reshape(x.size(0), *self.shape[1:])


def _below_autograd() -> bool:
    return torch._C._dispatch_tls_is_dispatch_key_excluded(torch._C.DispatchKey.AutogradCPU)


class _Multiplied(torch.autograd.Function):
    """Attaches messages that hold factor * scale to their factors in the graph."""

    @staticmethod
    def forward(ctx: Any, messages: Tensor, factor: Tensor, scale: Any) -> Tensor:
        ctx.mark_dirty(messages)
        ctx.number = None if isinstance(scale, Tensor) else scale
        of_scale = ctx.needs_input_grad[2]
        ctx.save_for_backward(factor if of_scale else None, None if ctx.number is not None else scale)
        return messages

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        factor, scale = ctx.saved_tensors
        to_factor = grad * (scale if ctx.number is None else ctx.number) if ctx.needs_input_grad[1] else None
        to_scale = (grad * factor).sum_to_size(scale.shape) if ctx.needs_input_grad[2] else None
        return None, to_factor, to_scale


def _register(product: Product, shape: torch.Size | None, *factors: Value) -> LazyMessage:
    product.call.values.append(weakref.ref(product))
    for value in factors:
        if value.products is None:
            value.products = []
        value.products.append(weakref.ref(product))
    return new_handle(product, shape)


# ---- with a weight per edge ------------------------------------------------------------------------------------------


def _mul(func: Callable, args: tuple, kwargs: dict) -> Any:
    if kwargs or len(args) != 2:
        return NotImplemented
    lazy, other = args if type(args[0]) is LazyMessage else (args[1], args[0])
    if type(other) is LazyMessage:
        if other.shape == lazy.shape:
            return _pair(lazy, other)
        if other.shape.numel() > lazy.shape.numel():  # the narrower operand becomes the weight
            lazy, other = other, lazy
        other._value.settle("mul")
        if type(lazy) is not LazyMessage:  # both were handles of one value, which is settled now
            return NotImplemented
    value = lazy._value
    # A checkpoint inside message() recomputes with real messages. The first run must save the same number of tensors.
    if not value.foldable or value.settled or surroundings.saved_tensor_hooks():
        return NotImplemented
    if value.weight is not None and value.x.dtype == torch.float16:
        return NotImplemented  # the product of two weights may overflow even if no message does
    product: Product | None
    if type(other) in (int, float):
        if not math.isfinite(other):
            return NotImplemented  # scaling x would give nodes that no edge reads a gradient of 0 * inf, NaN
        x, weight = (value.x * other, None) if value.weight is None else (value.x, value.weight * other)
        product = Product(value, x, weight, lazy, other)
    else:
        product = _weighted(lazy, other)
        if product is None:
            return NotImplemented
    return _register(product, lazy.shape, value)


def _weighted(lazy: LazyMessage, other: Any) -> Product | None:
    value, shape = lazy._value, lazy.shape
    scale = as_weight(value, shape, other)
    if scale is None:
        return None
    x, weight, trail = value.x, value.weight, shape[1:]
    if weight is not None and not (x.shape[1:] == trail or scale.dim() == 1):
        return None
    scale, version = _kept(value, scale)
    if scale.dtype != x.dtype:  # mixed precision: the product has the weight's wider dtype
        x = x.to(scale.dtype)
        weight = weight if weight is None else weight.to(scale.dtype)
    if weight is None:
        if x.shape[1:] != trail and not value.lead:
            x = x.reshape(x.size(0), *trail)
        weight = scale
    else:
        dims = max(weight.dim(), scale.dim())
        weight, version = with_dims(weight, dims) * with_dims(scale, dims), None
    if weight.requires_grad and torch.is_grad_enabled():
        x = consume.kept_features(x)
    recorded = torch.is_grad_enabled() and (weight.requires_grad or x.requires_grad)
    product = Product(value, x, weight, lazy if recorded else None, scale.reshape(other.shape) if recorded else None)
    product.weight_version = version
    return product


def _kept(value: Value, weight: Tensor) -> tuple[Tensor, int | None]:
    """Return the weight with its present values, and the version to check later.

    If only PyG's code runs in the call, the weight itself is kept and its version is checked. Otherwise user code may
    write to it, so a copy is kept and the version is None.
    """
    if weight.requires_grad and not torch.is_grad_enabled():
        weight = weight.detach()
    if value.call.runs_own_code():
        return weight, None if weight.is_inference() else weight._version
    shared = torch._C._is_cow_tensor(weight)  # type: ignore[attr-defined]
    return (weight._lazy_clone() if shared else weight.clone()), None


def as_weight(value: Value, shape: torch.Size, other: Any) -> Tensor | None:
    """Return other as a weight [E, *W] of these messages.

    Returns:
        None if other is not one factor per edge (and per head, or per feature).
    """
    if type(other) not in (Tensor, torch.nn.Parameter) or other.dim() == 0:
        return None
    if not other.is_floating_point() or other.device != value.x.device:
        return None
    dtype = torch.promote_types(other.dtype, value.x.dtype)
    if dtype != other.dtype:
        if dtype != value.x.dtype:
            return None
        other = other.to(dtype)  # as torch does before it multiplies
    if value.lead:  # the weight is [E, 1], or has additional ones for the batch dimensions
        edges, trailing = shape[value.lead], len(shape) - value.lead - 1
        per_edge = (1,) * max(other.dim() - trailing - 1, 0) + (edges,) + (1,) * trailing
        return other.reshape(edges) if other.shape == per_edge and other.dim() <= len(shape) else None
    if other.dim() != len(shape) or other.size(0) != shape[0]:
        return None
    dims = other.dim()
    while dims > 1 and other.size(dims - 1) == 1:
        dims -= 1
    if other.shape[1:dims] != shape[1:dims]:
        return None
    return other if dims == other.dim() else other.reshape(other.shape[:dims])


# ---- scores: products of the features of both ends, summed over the features -----------------------------------------


def _pair(first: LazyMessage, second: LazyMessage) -> LazyMessage | Any:
    for value in (first._value, second._value):
        if value.settled or value.lead or value.weight is not None or not value.foldable:
            return NotImplemented
    a, b = first._value, second._value
    same = a.x.dtype == b.x.dtype and a.src.dtype == b.src.dtype
    if not same or len(first.shape) < 2 or surroundings.saved_tensor_hooks():
        return NotImplemented
    # The placeholder of the product is lifted from `first`, so `first` must require a gradient if either operand does.
    # Otherwise `first` is x_j in x_i * x_j, because sddmm then uses the aggregation's plan, by destination.
    if b.x.requires_grad or not a.x.requires_grad:
        first, second = second, first
    mark_composed(a.conv)
    return _register(PairProduct(first, second), first.shape, a, b)


def _sum(func: Callable, args: tuple, kwargs: dict) -> Any:
    given = {**dict(zip(("input", "dim"), args, strict=False)), **kwargs}
    lazy = given.get("input")
    product = lazy._value if type(lazy) is LazyMessage else None
    if type(product) is not PairProduct or product.settled or len(args) > 2 or set(given) != {"input", "dim"}:
        return NotImplemented
    dims, last = given["dim"], len(product.shape) - 1
    if dims not in (-1, last, [-1], [last], (-1,), (last,)):
        return NotImplemented
    a, b = product.rows(product.first), product.rows(product.second)
    if torch.is_grad_enabled():
        a, b = consume.kept_features(a) if b.requires_grad else a, consume.kept_features(b) if a.requires_grad else b
    if a.is_cuda and torch.is_autocast_enabled():  # autocast runs sums of 16-bit values in float32
        a, b = (t.float() if t.itemsize == 2 else t for t in (a, b))
    try:
        scores = torch.ops.gnna.sddmm(a, b, product.first.src, product.second.src, last - 1, True)
    except ValueError as error:
        raise as_index_error(str(error), product.call, a.size(0)) from None
    report.fused(product.layer, form="scores sum(a_i * b_j)", work=math.prod(product.shape))
    return scores


register(
    {
        **{f: _mul for f in (torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__)},
        **{f: _sum for f in (torch.sum, Tensor.sum)},
    }
)
