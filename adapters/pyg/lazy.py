"""A gather that has not happened yet: LazyMessage stands for weight * x[src] and holds no edge-sized memory.

To Python it is a tensor of the right shape, dtype and gradient. Scaling by an edge weight and re-viewing keep it lazy;
scatter and reduce consume it as one spmm; every other operation gets the real messages, computed as PyG would, so that
user code cannot tell the difference. Its storage is a single NaN: code that reads it behind Python's back cannot go
unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import report, surroundings
from gnna_plugin.adapters.pyg import consume

_plain = torch._C.DisableTorchFunctionSubclass


class Gather:
    """What a LazyMessage stands for: messages [E, *S] = (weight [E, *W] * x [N, *K])[src], re-viewed to `shape`.

    W is a prefix of K. With `lead` batch dimensions the messages are [*B, E, *S], while x stays [N, *B, *S], a view of
    the user's features; weights are then one per edge. `value` holds the messages once somebody needed them; `pinned`
    means that they were changed or observed in place, so that only they are the truth from then on.
    """

    __slots__ = ("conv", "index", "lead", "pinned", "shape", "source", "src", "value", "version", "weight", "x")

    def __init__(self, x, weight, src, shape, conv, source, index, version, lead=0):
        self.x, self.weight, self.src, self.shape, self.lead = x, weight, src, shape, lead
        self.conv, self.source, self.index, self.version = conv, source, index, version
        self.value, self.pinned = None, False

    @property
    def layer(self) -> str:
        return type(self.conv).__name__

    def check_version(self) -> None:
        if self.version is not None and self.source._version != self.version:
            raise RuntimeError(
                f"{self.layer}: the features that were gathered have been modified in place before their messages were "
                "used; PyG gathered them earlier. Exclude the layer with `conv.gnna = False`"
            )

    def messages(self, operation: str) -> Tensor:
        """The real messages, as PyG computes them."""
        if self.value is not None:
            return self.value
        self.check_version()
        try:
            if self.lead:
                value = self.x.movedim(0, self.lead).index_select(self.lead, self.src)
            else:
                value = torch.ops.gnna.gather_rows(self.x, self.src)
        except (IndexError, ValueError, RuntimeError):
            self.conv._index_select_safe(self.source, self.index)  # raises with PyG's own words
            raise
        if self.weight is not None:
            value = value * _with_dims(self.weight, value.dim() - self.lead)
        if value.shape != self.shape:
            value = value.view(self.shape)
        report.materialised(self.layer, operation)
        # A value made without a graph must not serve code that wants gradients, and checkpointing recomputes on
        # purpose.
        tracked = torch.is_grad_enabled() or not (self.x.requires_grad or _requires_grad(self.weight))
        if tracked and not surroundings.saved_tensor_hooks():
            self.value = value
        return value


class LazyMessage(Tensor):
    """See the module's text. Made by `lift`; never constructed directly."""

    _gather: Gather

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        handler = _HANDLERS.get(func)
        if handler is not None:
            result = handler(func, args, kwargs)
            if result is not NotImplemented:
                return result
        return _on_messages(func, args, kwargs)

    @property
    def shape(self) -> torch.Size:
        gather = self._gather
        return gather.value.shape if gather.pinned else gather.shape

    def dim(self) -> int:
        return len(self.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def size(self, dim: int | None = None):
        return self.shape if dim is None else self.shape[dim]

    def __len__(self) -> int:
        return self.shape[0]


def _requires_grad(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.requires_grad


def lift(x: Tensor, src: Tensor, conv: Any, index: Tensor) -> LazyMessage:
    """The messages x[src] of a layer, not gathered. index is what the layer passed (src unwrapped from it)."""
    lead = conv.node_dim % x.dim()
    shape = torch.Size((*x.shape[:lead], src.numel(), *x.shape[lead + 1 :]))
    version = None if x.is_inference() else x._version
    nodes_first = x.movedim(lead, 0) if lead else x
    return _wrap(Gather(nodes_first, None, src, shape, conv, x, index, version, lead))


def _wrap(gather: Gather, placeholder: Tensor | None = None) -> LazyMessage:
    if placeholder is None:
        placeholder = torch.ops.gnna.lift(gather.x, gather.weight, gather.src)
        if gather.lead:
            placeholder = placeholder.movedim(0, gather.lead)
        if placeholder.shape != gather.shape:
            placeholder = placeholder.view(gather.shape)
    lazy = placeholder.as_subclass(LazyMessage)
    lazy._gather = gather
    return lazy


def unwrap(value: Any, operation: str) -> Any:
    """value with every LazyMessage in it, also inside lists, tuples and dicts, replaced by its messages."""
    kind = type(value)
    if kind is LazyMessage:
        return value._gather.messages(operation)
    if kind is list or kind is tuple:
        return kind(unwrap(item, operation) for item in value)
    if kind is dict:
        return {key: unwrap(item, operation) for key, item in value.items()}
    return value


_OBSERVERS = {
    "register_hook",
    "retain_grad",
    "register_post_accumulate_grad_hook",
    "__setitem__",
    "__set__",
    "__delitem__",
}


def _changes_in_place(name: str) -> bool:
    in_place = name.endswith("_") and not name.endswith("__")
    return (
        in_place
        or name in _OBSERVERS
        or (name.startswith("__i") and name not in ("__invert__", "__index__", "__int__"))
    )


def _on_messages(func: Callable, args: tuple, kwargs: dict) -> Any:
    name = getattr(func, "__name__", str(func))
    if name in ("__get__", "__set__"):  # an attribute: its name says more
        operation = getattr(getattr(func, "__self__", None), "__name__", name)
    else:
        operation = name.strip("_") or name
    plain_args = tuple(unwrap(arg, operation) for arg in args)
    plain_kwargs = {key: unwrap(value, operation) for key, value in kwargs.items()}
    if args and type(args[0]) is LazyMessage and _changes_in_place(name):
        args[0]._gather.value = plain_args[0]
        args[0]._gather.pinned = True
    return func(*plain_args, **plain_kwargs)


# ---- operations that stay lazy ---------------------------------------------------------------------------------------


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
    if type(lazy) is not LazyMessage or lazy._gather.pinned or lazy._gather.lead:
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
    return _wrap(viewed, placeholder)


def _mul(func: Callable, args: tuple, kwargs: dict) -> Any:
    if kwargs or len(args) != 2:
        return NotImplemented
    lazy, other = args if type(args[0]) is LazyMessage else (args[1], args[0])
    if type(other) is LazyMessage:  # the thinner one is the weight
        if other.shape == lazy.shape:
            return NotImplemented
        if other.shape.numel() > lazy.shape.numel():
            lazy, other = other, lazy
        other = other._gather.messages("mul")
    gather = lazy._gather
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
            weight = _with_dims(weight, dims) * _with_dims(scale, dims)
        else:
            return NotImplemented
    return _wrap(
        Gather(
            x, weight, gather.src, gather.shape, gather.conv, gather.source, gather.index, gather.version, gather.lead
        )
    )


def _with_dims(weight: Tensor, dims: int) -> Tensor:
    return weight.reshape(weight.shape + (1,) * (dims - weight.dim()))


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


def _getters(*names: str) -> dict:
    return {getattr(Tensor, name).__get__: _metadata for name in names}


_HANDLERS: dict[Callable, Callable] = {
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
    **{getattr(Tensor, name): _metadata for name in ("new_empty", "new_ones", "new_full", "new_tensor", "__hash__")},
    torch.is_floating_point: _metadata,
    torch.is_complex: _metadata,
    torch.numel: _metadata,
    Tensor.new_zeros: _new_zeros,
    Tensor.contiguous: _same,
    **{getattr(Tensor, name): _view for name in ("view", "reshape", "unsqueeze", "squeeze", "flatten")},
    **{getattr(torch, name): _view for name in ("reshape", "unsqueeze", "squeeze", "flatten")},
    **{f: _mul for f in (torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__)},
    **consume.HANDLERS,
}
