"""Where a layer's call begins and ends: PyG's propagate and edge_updater, wrapped wherever a class holds them. Messages
are lazy inside a call only. What is still referenced when it ends is settled.
"""

from __future__ import annotations

import contextlib
import threading
import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn import MessagePassing

from gnna_plugin import report, settings
from gnna_plugin.adapters.pyg import own_code, small_graphs
from gnna_plugin.patching import stand_in

# The attributes of a class that hold such a function. PyG binds some to instances (explain, decomposed_layers).
_NAMES = (
    "propagate",
    "edge_updater",
    "_orig_propagate",
    "_jinja_propagate",
    "_orig_edge_updater",
    "_jinja_edge_updater",
)
_MARK = "_gnna_wraps"
_OUTLIVES = "use after the layer"
_rebound: weakref.WeakSet[MessagePassing] = weakref.WeakSet()


class Call:
    """One call that runs on this thread: the layer, the values it gathered (weakly), whether its graph is known to
    repay a plan, and the side, "src" or "dst", of an index that was out of range."""

    __slots__ = ("bad_side", "layer", "own", "pays", "values")

    def __init__(self, layer: MessagePassing, pays: bool = False):
        self.layer, self.pays = layer, pays
        self.bad_side: str | None = None
        self.values: list[weakref.ref] = []
        self.own: bool | None = None  # whether no code but the framework's runs in it; None: not asked yet

    def runs_own_code(self) -> bool:
        """Whether nobody but the framework could write to anything while it runs."""
        if self.own is None:
            self.own = own_code.steps_are_own(self.layer)
        return self.own

    def settle(self, operation: str) -> None:
        """Settles all that was gathered in this call and is still referenced."""
        for ref in self.values:
            value = ref()
            if value is not None:
                value.settle(operation)

    def end_in_error(self) -> None:
        """The end of a call that raised. A value that cannot be computed stays as it is, and raises when it is used. On
        a GPU an index out of range may not reach torch's gather, whose assertion ends the CUDA context."""
        if self.bad_side is not None:
            return
        for ref in self.values:
            value = ref()
            if value is not None:
                with contextlib.suppress(RuntimeError, IndexError, MemoryError):
                    value.settle(_OUTLIVES)


class _Thread(threading.local):
    calls: tuple[Call, ...] = ()  # innermost last
    left_to_framework = False  # the innermost call is too small: its gathers and reductions are PyG's


thread = _Thread()


def current() -> Call | None:
    """The innermost call that runs on this thread."""
    calls = thread.calls
    return calls[-1] if calls else None


def running() -> tuple[Call, ...]:
    """All calls that run on this thread, the innermost last."""
    return thread.calls


def _run(original: Callable, conv: MessagePassing, args: tuple, kwargs: dict) -> Any:
    if thread.left_to_framework:
        return original(conv, *args, **kwargs)
    edges = args[0] if args else kwargs.get("edge_index")
    if type(edges) is not Tensor or edges.layout is not torch.strided:
        _count_framework_input(conv, edges)
        pays = False
    else:
        reason, pays = small_graphs.of_call(edges, kwargs.get("x"), conv.node_dim)
        if reason is not None:
            return _leave(original, conv, args, kwargs, reason)
    outer = thread.calls
    call = Call(conv, pays)
    thread.calls = (*outer, call)
    try:
        out = original(conv, *args, **kwargs)
    except BaseException as error:
        thread.calls = outer
        call.end_in_error()
        if call.bad_side == "src" and isinstance(error.__context__, IndexError):
            raise error.__context__ from None  # in PyG the gather fails first, where no aggregation renames its error
        raise
    thread.calls = outer
    if call.values:
        call.settle(_OUTLIVES)
    return out


def _leave(original: Callable, conv: MessagePassing, args: tuple, kwargs: dict, reason: str) -> Any:
    edges, x = args[0] if args else kwargs["edge_index"], kwargs["x"]
    return leave(original, conv, args, kwargs, reason, edges, x[0] if type(x) is tuple else x)


def leave(
    original: Callable, conv: MessagePassing, args: tuple, kwargs: dict, reason: str, edges: Tensor, x: Tensor
) -> Any:
    """Runs a call that is too small: its gathers and reductions are PyG's."""
    count_left(conv, reason, edges, x)
    thread.left_to_framework = True
    try:
        return original(conv, *args, **kwargs)
    finally:
        thread.left_to_framework = False


def count_left(conv: MessagePassing, reason: str, edges: Tensor, x: Tensor) -> None:
    """Notes a call of this size that is left to PyG."""
    report.left_to_framework(type(conv).__name__, reason, lambda: f"{edges.size(-1):,} edges x {x.size(1)}")


def _count_framework_input(conv: MessagePassing, edges: Any) -> None:
    """Notes an input that PyG aggregates without a gather that could be seen."""
    name = type(edges).__name__
    if isinstance(edges, EdgeIndex):
        if conv.fuse and conv.SUPPORTS_FUSED_EDGE_INDEX and edges.is_sorted_by_col:
            report.left_to_framework(type(conv).__name__, f"{name} input")
        return
    if isinstance(edges, Tensor) and edges.layout is not torch.strided:
        name = f"torch.{str(edges.layout).removeprefix('torch.')}"
    elif name != "SparseTensor":
        return
    if conv.fuse or conv.explain or conv.decomposed_layers > 1:
        report.left_to_framework(type(conv).__name__, f"{name} input")


def _wrap(original: Callable) -> Callable:
    compiling, active, run = torch.compiler.is_compiling, settings.active, _run

    def call(self, *args, **kwargs):
        if compiling() or not active():
            return original(self, *args, **kwargs)
        return run(original, self, args, kwargs)

    wrapper = stand_in(call, original)
    wrapper.__defaults__, wrapper.__kwdefaults__ = None, None  # the original fills in its own
    setattr(wrapper, _MARK, original)
    return wrapper


def _wrap_classes(classes: Iterable[type]) -> None:
    for cls in classes:
        ours: dict[Callable, Callable] = {}
        for name in _NAMES:
            function = vars(cls).get(name)
            if isinstance(function, types.FunctionType) and _MARK not in vars(function):
                if function not in ours:
                    ours[function] = _wrap(function)
                setattr(cls, name, ours[function])


def _classes(root: type = MessagePassing) -> Iterable[type]:
    yield root
    subclasses: list[type] = root.__subclasses__()
    for cls in subclasses:
        yield from _classes(cls)


def rebind(conv: MessagePassing) -> None:
    """Wraps the propagate that PyG bound to an instance before enable(), for its next call."""
    bound = vars(conv).get("propagate")
    function = getattr(bound, "__func__", None)
    for name in ("_jinja_propagate", "_orig_propagate"):
        wrapper: Any = getattr(type(conv), name, None)
        if function is not None and getattr(wrapper, _MARK, None) is function:
            conv.propagate = types.MethodType(wrapper, conv)
            _rebound.add(conv)


def templates_hook(original: Callable) -> Callable:
    """MessagePassing._set_jittable_templates, which gives a class its propagate when it is first instantiated."""
    wrap = _wrap_classes

    def _set_jittable_templates(self, raise_on_error=False):
        original(self, raise_on_error)
        wrap(cls for cls in type(self).__mro__ if issubclass(cls, MessagePassing))

    return stand_in(_set_jittable_templates, original)


def install() -> None:
    """Wraps what every class holds now."""
    _wrap_classes(set(_classes()))


def uninstall() -> None:
    """Gives every class its own functions back."""
    for cls in set(_classes()):
        for name in _NAMES:
            original = getattr(vars(cls).get(name), _MARK, None)
            if original is not None:
                setattr(cls, name, original)
    for conv in list(_rebound):
        original = getattr(getattr(vars(conv).get("propagate"), "__func__", None), _MARK, None)
        if original is not None:
            conv.propagate = types.MethodType(original, conv)
    _rebound.clear()
