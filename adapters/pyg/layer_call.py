"""Tracks the calls of layers: wraps propagate and edge_updater in every class that defines them.

Messages are lazy only inside such a call. Messages that are still referenced when it ends are settled.
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
from torch_geometric.nn import MessagePassing

from gnna_plugin import report, settings
from gnna_plugin.patching import stand_in

from . import own_code, small_graphs
from .compiled import trace

# Class attributes that hold a propagate or an edge_updater. PyG binds some of them to instances (explain,
# decomposed_layers).
_NAMES = (
    "propagate",
    "edge_updater",
    "_orig_propagate",
    "_jinja_propagate",
    "_orig_edge_updater",
    "_jinja_edge_updater",
)
_MARK = "_gnna_wraps"
_Shortcut = Callable[[MessagePassing, Tensor, dict], Any]  # propagate(layer, edge_index, other arguments), or None


class _Shortcuts:
    """Functions that run a whole propagate of a simple layer: fused, or with PyG's operations. See direct.py."""

    fused: _Shortcut
    small: _Shortcut


shortcuts = _Shortcuts()
_rebound: weakref.WeakSet[MessagePassing] = weakref.WeakSet()


class Call:
    """One running call of a layer on this thread.

    Attributes:
        layer: the layer.
        updates_edges: whether it is an edge_updater, which reduces nothing by itself.
        pays: whether its graph is known to be large enough, or used often enough, to repay a plan.
        bad_side: "src" or "dst" after an index on that side was out of range, else None.
        values: weak references to the lazy values gathered in this call.
    """

    __slots__ = ("bad_side", "layer", "own", "pays", "updates_edges", "values")

    def __init__(self, layer: MessagePassing, pays: bool = False, updates_edges: bool = False):
        self.layer, self.pays, self.updates_edges = layer, pays, updates_edges
        self.bad_side: str | None = None
        self.values: list[weakref.ref] = []
        self.own: bool | None = None  # whether only PyG's code runs in it; None: not checked yet

    def runs_own_code(self) -> bool:
        """Return whether only PyG's code runs in this call.

        No user code can then write to a tensor while it runs.
        """
        if self.own is None:
            self.own = own_code.steps_are_own(self.layer)
        return self.own

    def settle(self, operation: str) -> None:
        """Settle all values that were gathered in this call and are still referenced."""
        for ref in self.values:
            value = ref()
            if value is not None:
                value.settle(operation)

    def end_in_error(self) -> None:
        """End a call that raised an exception.

        A value that cannot be computed stays lazy and raises when it is used. After an index was out of range nothing
        is settled, because on a GPU torch's gather would fail a device assertion and so end the CUDA context.
        """
        if self.bad_side is not None:
            return
        for ref in self.values:
            value = ref()
            if value is not None:
                with contextlib.suppress(RuntimeError, IndexError, MemoryError):
                    value.settle(report.OUTLIVES)


class _Thread(threading.local):
    calls: tuple[Call, ...] = ()  # innermost last
    left_to_framework = False  # the innermost call is too small, so PyG does its gathers and reductions


thread = _Thread()


def current() -> Call | None:
    """Return the innermost call that runs on this thread, or None."""
    calls = thread.calls
    return calls[-1] if calls else None


def running() -> tuple[Call, ...]:
    """Return all calls that run on this thread, the innermost last."""
    return thread.calls


def _run(original: Callable, conv: MessagePassing, args: tuple, kwargs: dict) -> Any:
    if thread.left_to_framework:
        return original(conv, *args, **kwargs)
    edges = args[0] if args else kwargs.get("edge_index")
    updates_edges = original.__name__ == "edge_updater"
    if type(edges) is not Tensor or edges.layout is not torch.strided:
        pays = False
    else:
        reason, pays = small_graphs.of_call(conv, edges, kwargs)
        if reason is not None:
            out = None if updates_edges or not args else shortcuts.small(conv, edges, kwargs)
            if out is None:
                return leave(original, conv, args, kwargs, reason)
            count_left(conv, reason, edges, kwargs)
            return out
        if args and not updates_edges:
            out = shortcuts.fused(conv, edges, kwargs)
            if out is not None:
                return out
    outer = thread.calls
    call = Call(conv, pays, updates_edges)
    thread.calls = (*outer, call)
    try:
        out = original(conv, *args, **kwargs)
    except BaseException as error:
        thread.calls = outer
        call.end_in_error()
        if call.bad_side == "src" and isinstance(error.__context__, IndexError):
            # PyG gathers before it aggregates, so the user sees the gather's IndexError. Here the aggregation found the
            # bad index and turned the IndexError into another exception.
            raise error.__context__ from None
        raise
    thread.calls = outer
    if call.values:
        call.settle(report.OUTLIVES)
    return out


def leave(original: Callable, conv: MessagePassing, args: tuple, kwargs: dict, reason: str) -> Any:
    """Run a call of propagate or edge_updater that is too small with PyG's own gathers and reductions."""
    count_left(conv, reason, args[0] if args else kwargs["edge_index"], kwargs)
    return run_plainly(original, conv, args, kwargs)


def run_plainly(function: Callable, conv: MessagePassing, args: tuple, kwargs: dict) -> Any:
    """Run a function of a layer in which PyG does the gathers and reductions."""
    thread.left_to_framework = True
    try:
        return function(conv, *args, **kwargs)
    finally:
        thread.left_to_framework = False


def count_left(conv: MessagePassing, reason: str, edges: Tensor, given: dict) -> None:
    """Count a call that is left to PyG, and report its size."""

    x: Any = small_graphs.features_of(given)  # not None, because the call's size was judged by it
    count, width = edges.size(-1), small_graphs.width_of(x)
    report.left_to_framework(type(conv).__name__, reason, lambda: f"{count:,} edges x {width}", count * width)


def _wrap(original: Callable) -> Callable:
    compiling, active, run, traced = torch.compiler.is_compiling, settings.active, _run, trace.call

    def call(self, *args, **kwargs):
        if compiling():
            return traced(original, self, args, kwargs)
        if not active():
            return original(self, *args, **kwargs)
        return run(original, self, args, kwargs)

    wrapper = stand_in(call, original)
    wrapper.__defaults__, wrapper.__kwdefaults__ = None, None  # the original applies its own defaults
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
    """Wrap the propagate that PyG bound to an instance before enable().

    This takes effect from the next call.
    """
    bound = vars(conv).get("propagate")
    function = getattr(bound, "__func__", None)
    for name in ("_jinja_propagate", "_orig_propagate"):
        wrapper: Any = getattr(type(conv), name, None)
        if function is not None and getattr(wrapper, _MARK, None) is function:
            conv.propagate = types.MethodType(wrapper, conv)
            _rebound.add(conv)


def templates_hook(original: Callable) -> Callable:
    """Replace MessagePassing._set_jittable_templates: wrap what it sets.

    PyG calls it for every new instance. The first instance of a class sets the propagate and edge_updater of the class.
    """
    wrap = _wrap_classes

    def _set_jittable_templates(self, raise_on_error=False):
        original(self, raise_on_error)
        wrap(cls for cls in type(self).__mro__ if issubclass(cls, MessagePassing))

    return stand_in(_set_jittable_templates, original)


def install(fused: _Shortcut, small: _Shortcut) -> None:
    """Wrap propagate and edge_updater of all classes that exist now."""
    shortcuts.fused, shortcuts.small = fused, small
    _wrap_classes(set(_classes()))


def uninstall() -> None:
    """Restore the functions of every class and instance."""
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
