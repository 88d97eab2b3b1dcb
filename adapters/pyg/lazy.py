"""A gather that has not happened yet: LazyMessage stands for weight * x[src] and holds no edge-sized memory.

To Python it is a tensor of the right shape, dtype and gradient. Some operations keep it lazy (lazy_operations.py),
scatter and reduce consume it as one spmm (consume.py); every other operation gets the real messages, computed as PyG
would, so that user code cannot tell the difference. Its storage is a single NaN: code that reads it behind Python's
back cannot go unnoticed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import report, surroundings
from gnna_plugin.adapters.pyg import consume

# What a LazyMessage does with a function, by the function: (function, args, kwargs) -> its result, or NotImplemented.
HANDLERS: dict[Callable, Callable] = dict(consume.HANDLERS)


class Gather:
    """What a LazyMessage stands for: messages [E, *S] = (weight [E, *W] * x [N, *K])[src], re-viewed to `shape`.

    W is a prefix of K. With `lead` batch dimensions the messages are [*B, E, *S], while x stays [N, *B, *S], a view of
    the user's features; weights are then one per edge. `value` holds the messages once somebody needed them, recorded
    for a gradient or not as when the gather was made; `observed` means that a hook, say, was put on them.
    """

    foldable = True  # into one spmm
    __slots__ = ("conv", "index", "lead", "made", "observed", "recorded", "shape", "source", "src", "value", "version")
    __slots__ += ("weight", "x")

    def __init__(self, x, weight, src, shape, conv, source, index, version, lead=0):
        self.x, self.weight, self.src, self.shape, self.lead = x, weight, src, shape, lead
        self.conv, self.source, self.index, self.version = conv, source, index, version
        self.recorded = torch.is_grad_enabled()
        self.value, self.made, self.observed = None, None, False  # made: the version that the value had at first

    @property
    def layer(self) -> str:
        return type(self.conv).__name__

    @property
    def changed(self) -> bool:
        """Whether the messages were written to, under whatever name, since they were computed."""
        return self.value is not None and _version(self.value) != self.made

    @property
    def pinned(self) -> bool:
        """Whether only the messages are the truth by now."""
        return self.observed or self.changed

    def grad_mode(self) -> contextlib.AbstractContextManager:
        """Around what is computed of the gather: no gradient is recorded where none was when it was made."""
        return contextlib.nullcontext() if self.recorded or not torch.is_grad_enabled() else torch.no_grad()

    def check_version(self) -> None:
        if self.version is not None and self.source._version != self.version:
            raise RuntimeError(
                f"{self.layer}: the features that were gathered have been modified in place before their messages were "
                "used; PyG gathered them earlier. Exclude the layer with `conv.gnna = False`"
            )

    def messages(self, operation: str) -> Tensor:
        """The real messages, as PyG computes them."""
        if self.value is None:
            with torch.set_grad_enabled(self.recorded):
                value = self.compute(operation)
            if surroundings.saved_tensor_hooks():  # checkpointing recomputes on purpose
                return value
            self.value, self.made = value, _version(value)
        return self.value

    def compute(self, operation: str) -> Tensor:
        self.check_version()
        try:
            if self.lead:
                value = self.x.movedim(0, self.lead).index_select(self.lead, self.src)
            else:
                value = torch.ops.gnna.gather_rows(self.x, self.src)
        except ValueError as error:
            raise IndexError(str(error)) from None
        except (IndexError, RuntimeError):
            self.conv._index_select_safe(self.source, self.index)  # raises with PyG's own words
            raise
        if self.weight is not None:
            value = value * with_dims(self.weight, value.dim() - self.lead)
        if value.shape != self.shape:
            value = value.view(self.shape)
        report.materialised(self.layer, operation)
        return value


class LazyMessage(Tensor):
    """See the module's text. Made by `lift`; never constructed directly."""

    _gather: Gather

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        handler = HANDLERS.get(func)
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


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def with_dims(weight: Tensor, dims: int) -> Tensor:
    return weight.reshape(weight.shape + (1,) * (dims - weight.dim()))


def lift(x: Tensor, src: Tensor, conv: Any, index: Tensor) -> LazyMessage:
    """The messages x[src] of a layer, not gathered. index is what the layer passed (src unwrapped from it)."""
    lead = conv.node_dim % x.dim()
    shape = torch.Size((*x.shape[:lead], src.numel(), *x.shape[lead + 1 :]))
    version = None if x.is_inference() else x._version
    nodes_first = x.movedim(lead, 0) if lead else x
    return wrap(Gather(nodes_first, None, src, shape, conv, x, index, version, lead))


def wrap(gather: Gather, placeholder: Tensor | None = None) -> LazyMessage:
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
        args[0]._gather.observed = True
    return func(*plain_args, **plain_kwargs)
