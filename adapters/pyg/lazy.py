"""Lazy messages: a LazyMessage stands for weight * x[src], a gather that has not run yet, and holds no edge-sized
memory.

A Value describes the messages. Its handles, the tensor that message() receives and the views of it, are LazyMessages
that share one storage without memory. An operation with a lazy form (lazy_operations.py, lazy_products.py, consume.py)
keeps the value lazy. Any other operation settles it first: the messages are computed, the storage receives their
memory, and the handles become plain tensors.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from gnna_plugin import report, surroundings

from .index_errors import gather
from .small_graphs import mark_composed

# Function -> its handlers for lazy messages: (function, args, kwargs) -> result, or NotImplemented. If all return
# NotImplemented, the messages are settled.
HANDLERS: dict[Callable, tuple[Callable, ...]] = {}


def register(handlers: dict[Callable, Callable], first: bool = False) -> None:
    """Add handlers. With `first` they are asked before the others."""
    for function, handler in handlers.items():
        known = HANDLERS.get(function, ())
        HANDLERS[function] = (handler, *known) if first else (*known, handler)


_plain = torch._C.DisableTorchFunctionSubclass
_arm, _fill = torch.ops.gnna.arm.default, torch.ops.gnna.fill.default
_aten = torch.ops.aten


class Value:
    """Messages [E, *S] with message[e] = weight[e] * x[src[e]].

    weight is [E, *W] and x is [N, *K]; W is a prefix of K. S has as many elements as K, because a view may regroup the
    dimensions. With `lead` batch dimensions the messages are [*B, E, *S], x is [N, *B, *S], a view of the user's
    features, and there is one weight per edge. The values are fixed at the time of the gather.

    Attributes:
        source: the features as the layer passed them.
        version: the version counter of `source` at the gather, or None for an inference tensor, which has none.
        weight_version: the version counter of a weight that is kept without a copy, else None.
        computed: x was computed from the features, and its rows are its first dimension.
    """

    foldable = True  # whether one spmm can reduce these messages
    __slots__ = (
        "__weakref__", "call", "computed", "conv", "handles", "index", "lead", "products", "settled", "source", "src",
        "version", "weight", "weight_version", "x",
    )  # fmt: skip

    def __init__(
        self, x: Tensor, src: Tensor, conv: Any, source: Tensor, index: Any, version: int | None, lead: int, call: Any
    ) -> None:
        self.x, self.src, self.conv, self.source, self.index, self.version = x, src, conv, source, index, version
        self.lead, self.call = lead, call
        self.weight: Any = None  # a Tensor, or None for ones
        self.weight_version: int | None = None
        self.settled = self.computed = False
        self.handles: list[weakref.ref[LazyMessage]] = []
        self.products: list[weakref.ref[Any]] | None = None  # products of this value, which may still be lazy

    @property
    def layer(self) -> str:
        return type(self.conv).__name__

    def check_versions(self) -> None:
        """Raise RuntimeError if the features or the weight were modified in place."""
        if self.version is not None and self.source._version != self.version:
            what = "features that were gathered have"
        elif self.weight_version is not None and self.weight._version != self.weight_version:
            what = "weight that its messages were multiplied with has"
        else:
            return
        raise RuntimeError(
            f"{self.layer}: the {what} been modified in place before the messages were computed; PyG computes them "
            "before that write. Write to a copy instead (x = x.clone()), or exclude the layer with `conv.gnna = False`"
        )

    def settle(self, operation: str) -> None:
        """Compute the messages as PyG does and make all handles plain tensors.

        Args:
            operation: the name of the operation that needs them, for status().
        """
        handles = [handle for ref in self.handles if (handle := ref()) is not None]
        self.handles.clear()
        if not handles:
            return
        try:
            with _plain():
                self._fill(handles[0], operation)
        except BaseException:
            self.handles += map(weakref.ref, handles)
            raise
        with _plain(), surroundings.outside_transforms():  # a transform would pass _arm a wrapper, not the handle
            for handle in handles:
                _arm(handle, False)
        for handle in handles:
            handle.__class__ = Tensor  # type: ignore[assignment]
            del handle.__dict__["_value"], handle.__dict__["_shape"]
        self._join_graph(handles)
        self._settle_products(operation)

    def _join_graph(self, handles: Sequence[Tensor]) -> None:
        """Attach filled handles to the autograd graph at the place of PyG's messages.

        The handles of a plain gather need nothing, because `lift` has attached them.
        """

    def _fill(self, handle: Tensor, operation: str) -> None:
        if self.settled:
            return
        with torch.no_grad(), surroundings.outside_transforms(), torch._C._DisableTorchDispatch():
            messages = self.compute()
            self.settled = True
            _fill(handle, messages)
        report.materialised(self.layer, operation, messages.numel())

    def _settle_products(self, operation: str) -> None:
        """Settle the products that record a gradient.

        Their gradient then flows through this value, which may have hooks.
        """
        for ref in self.products or ():
            product = ref()
            if product is not None and product._is_recorded():
                product.settle(operation)
        self.products = None

    def reduce(self, dst: Tensor, num_dst: int, reduce: str) -> Any:
        """Reduce messages that are not foldable, if an op can do so.

        Returns:
            [num_dst, *S], or NotImplemented.
        """
        return NotImplemented

    def compute(self) -> Tensor:
        """Return the messages in a new tensor."""
        self.check_versions()
        if self.lead:
            try:
                value = self.x.movedim(0, self.lead).index_select(self.lead, self.src)
            except (IndexError, RuntimeError):
                self.conv._index_select_safe(self.source, self.index)  # raises PyG's own error
                raise
            value = value.movedim(self.lead, 0)  # the order of the handles' storage
        elif self.computed:
            value = self.x.index_select(0, self.src)
        else:
            value = gather(self.conv, self.x, self.index, self.src, self.call)
        return value if self.weight is None else value.mul_(with_dims(self.weight, value.dim()))


class LazyMessage(Tensor):
    """A handle of a Value, see the module's docstring.

    `lift`, `new_handle` and `as_handle` create it; it is never constructed directly. Settling changes its class to
    Tensor.
    """

    _value: Value
    _shape: torch.Size

    # Read many times in each call. They are overridden because a detour through __torch_function__ takes as long as an
    # operation.

    @property
    def shape(self) -> torch.Size:  # type: ignore[override]
        return self._shape

    @property
    def ndim(self) -> int:  # type: ignore[override]
        return len(self._shape)

    def dim(self) -> int:
        return len(self._shape)

    def size(self, dim: int | None = None) -> Any:
        return self._shape if dim is None else self._shape[dim]

    def __len__(self) -> int:
        return self._shape[0]

    def as_subclass(self, cls: type) -> Any:  # torch 2.4 does not pass it to __torch_function__
        self._value.settle("as_subclass")
        return self.as_subclass(cls)

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in HANDLERS and not surroundings.transforming():
            for handler in HANDLERS[func]:
                result = handler(func, args, kwargs)
                if result is not NotImplemented:
                    return result
        if settle_all((args, kwargs), _name_of(func)):
            return func(*args, **kwargs)
        with _plain():  # settle_all did not find the lazy message in the arguments; __torch_dispatch__ will
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Handle an operation from C++ code, which bypasses __torch_function__."""
        kwargs = kwargs or {}
        name = func.__name__.partition(".")[0]
        if func in _QUESTIONS:
            value = args[0]._value
            value.settle(name)
            return value.x.device if func is torch.ops.prim.device.default else None  # None: torch's default answer
        settle_all((args, kwargs), name)
        return func(*args, **kwargs)


# Queries that the C++ implementation of an armed tensor (csrc/torch/ops/lift.cpp) forwards to its Python class.
_QUESTIONS = {torch.ops.prim.device.default}
for _name in ("stride", "sym_stride", "is_contiguous", "sym_is_contiguous", "is_strides_like_format",
              "is_non_overlapping_and_dense"):  # fmt: skip
    if hasattr(_aten, _name):  # not all of them in torch 2.4
        _QUESTIONS.update(getattr(getattr(_aten, _name), overload) for overload in getattr(_aten, _name).overloads())


def _name_of(func: Callable) -> str:
    name = getattr(func, "__name__", str(func))
    if name in ("__get__", "__set__"):  # an attribute; return the attribute's name
        return getattr(getattr(func, "__self__", None), "__name__", name)
    return name.strip("_") or name


def with_dims(weight: Tensor, dims: int) -> Tensor:
    return weight.reshape(weight.shape + (1,) * (dims - weight.dim()))


def lift(x: Tensor, src: Tensor, conv: Any, index: Tensor, call: Any) -> LazyMessage:
    """Return the messages x[src] of a layer without gathering them.

    Args:
        src: the indices [E], a plain tensor.
        index: the indices as the layer passed them, from which src was unwrapped.
        call: the running call of the layer, which settles the messages when it ends.
    """
    source = x
    if x.requires_grad and not torch.is_grad_enabled():
        x = x.detach()  # gathered without a gradient, whatever the gradient mode of the reduction
    lead = conv.node_dim % x.dim()
    value = Value(
        x.movedim(lead, 0) if lead else x,
        src,
        conv,
        source,
        index,
        None if x.is_inference() else x._version,
        lead,
        call,
    )
    call.values.append(weakref.ref(value))
    return new_handle(value)


def lift_rows(x: Tensor, like: Value, src: Tensor | None = None) -> LazyMessage:
    """Return the messages x[src], where x was computed from gathered features. src defaults to that of `like`."""
    src = like.src if src is None else src
    value = Value(x, src, like.conv, x, src, None if x.is_inference() else x._version, 0, like.call)
    value.computed = True
    mark_composed(like.conv)
    like.call.values.append(weakref.ref(value))
    return new_handle(value)


def new_handle(value: Value, shape: torch.Size | None = None) -> LazyMessage:
    handle = torch.ops.gnna.lift(value.x, value.weight, value.src)
    if value.lead:
        handle = handle.movedim(0, value.lead)
    if shape is not None and handle.shape != shape:
        handle = handle.view(shape)
    return as_handle(handle, value)


def as_handle(tensor: Any, value: Value) -> LazyMessage:
    """Turn a tensor on the value's storage into a handle of the value."""
    _arm(tensor, True)
    attributes = tensor.__dict__
    attributes["_value"], attributes["_shape"] = value, tensor.shape
    tensor.__class__ = LazyMessage
    value.handles.append(weakref.ref(tensor))
    return tensor


def settle_all(arguments: Any, operation: str) -> bool:
    """Settle every lazy message in the arguments, containers of any kind included.

    Returns:
        Whether there was one.
    """
    found = False
    for item in _leaves(arguments):
        if type(item) is LazyMessage:
            item._value.settle(operation)
            found = True
    return found


def _leaves(item: Any) -> Iterator[Any]:
    kind = type(item)
    if kind is tuple or kind is list:
        for inner in item:
            yield from _leaves(inner)
    elif kind is dict:
        for inner in item.values():
            yield from _leaves(inner)
    elif kind is LazyMessage or isinstance(item, (Tensor, str, int, float, type(None))):
        yield item
    else:
        yield from _pytree.tree_leaves(item)
