"""profile(): the time of every graph layer of a running model, what it ran on, and why.

The times of the forward pass are taken around the layer's call, those of the backward pass between the gradient of its
output and the last gradient that it computes. On a GPU they are those of events in the current stream.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from gnna_plugin import decider, layer_calls, notebook, report, settings

_LONGEST_NAME = 30
# Unread pairs of events that are kept before the finished ones are read.
_MOST_PENDING = 512


@dataclass
class LayerProfile:
    """What one layer of a model did while it was profiled.

    Attributes:
        layer: the layer as its repr shows it, such as "GCNConv(96, 16)". Layers of equal repr share an entry.
        kind: its class name.
        calls: number of calls.
        forward_ms, backward_ms: total times in milliseconds. backward_ms does not include calls whose inputs and
            parameters need no gradient, and of several calls before a backward pass it includes the last one only.
            If several layers read an input, it ends with the gradients of the layer's parameters.
        fused, reduced, left: numbers of fused aggregations, of reductions of existing messages by one kernel, and of
            gathers that ran as the framework's own code.
        configuration: the kernel and the launch parameters of the first fused aggregation; "" if there was none.
    """

    layer: str
    kind: str
    calls: int = 0
    forward_ms: float = 0.0
    backward_ms: float = 0.0
    fused: int = 0
    reduced: int = 0
    left: int = 0
    configuration: str = ""


class _Backward:
    """The backward pass of one call: the times of its first and of its latest gradient so far, and the hooks."""

    def __init__(self, entry: LayerProfile, on_gpu: bool) -> None:
        self.entry, self.on_gpu = entry, on_gpu
        self.handles: list[Any] = []
        self.inputs: dict[int, Any] = {}  # handles of the hooks on inputs, by id of the input
        self.done = False
        self.first: Any = None
        self.last: Any = None

    def begin(self, _grad: Tensor) -> None:
        if self.first is None:
            self.first = _now(self.on_gpu)

    def reach(self, _grad: Tensor) -> None:
        if self.first is not None:
            self.last = _now(self.on_gpu)


@dataclass
class Profile:
    """The result of profile(). str() is a table for people, as_dict() for programs.

    Attributes:
        layers: LayerProfiles in the order of their first call.
        reasons: by layer class, why calls were not fused, since the process started or reset_status() was called.
        wall_ms: milliseconds from the start of the profile to its end, or until now.
    """

    _entries: dict[str, LayerProfile] = field(default_factory=dict)
    _pending: list[tuple[LayerProfile, str, Any, Any]] = field(default_factory=list)
    _names: weakref.WeakKeyDictionary = field(default_factory=weakref.WeakKeyDictionary)
    _waiting: dict[int, _Backward] = field(default_factory=dict)  # by id of the layer, the latest call of each
    _consumers: WeakIdKeyDictionary = field(default_factory=WeakIdKeyDictionary)  # input -> the _Backward that waits
    _begin: float = 0.0
    _end: float | None = None

    @property
    def layers(self) -> list[LayerProfile]:
        self._read(everything=True)
        return list(self._entries.values())

    @property
    def reasons(self) -> dict[str, list[str]]:
        counts = report.snapshot()[0]
        kinds = dict.fromkeys(entry.kind for entry in self._entries.values())
        return {kind: counts[kind].not_fused() for kind in kinds if kind in counts}

    @property
    def wall_ms(self) -> float:
        return 1e3 * ((time.perf_counter() if self._end is None else self._end) - self._begin)

    def as_dict(self) -> dict:
        layers = [vars(entry).copy() for entry in self.layers]
        return {"wall_ms": self.wall_ms, "layers": layers, "reasons": self.reasons}

    def __str__(self) -> str:
        layers, reasons = self.layers, self.reasons
        if not layers:
            return "gnna_plugin profile: no graph layer was called"
        forward, backward = sum(e.forward_ms for e in layers), sum(e.backward_ms for e in layers)
        wide = max(len("layer"), *(len(e.layer) for e in layers))
        lines = [
            f"gnna_plugin profile: graph layers took {forward:,.1f} ms forward and {backward:,.1f} ms backward, "
            f"{100 * (forward + backward) / self.wall_ms:.0f} % of {self.wall_ms:,.0f} ms",
            f"  {'layer':{wide}} {'calls':>6} {'ms/call':>8} {'backward':>8} {'fused':>6} {'reduced':>7} {'left':>5}",
        ]
        for e in layers:
            lines.append(
                f"  {e.layer:{wide}} {e.calls:6,} {e.forward_ms / e.calls:8.3f} {e.backward_ms / e.calls:8.3f} "
                f"{e.fused:6,} {e.reduced:7,} {e.left:5,}"
            )
            if e.configuration:
                lines.append(f"    {e.configuration}")
        lines += [f"  {kind}: {text}" for kind, texts in reasons.items() for text in texts]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [
            (e.layer, e.calls, f"{e.forward_ms / e.calls:.3f}", f"{e.backward_ms / e.calls:.3f}", e.fused, e.reduced,
             e.left, [e.configuration, *self.reasons.get(e.kind, ())])
            for e in self.layers
        ]  # fmt: skip
        headings = ("layer", "calls", "ms per call", "backward", "fused", "reduced", "left", "how, and why")
        return notebook.table("gnna_plugin profile", headings, rows)

    # ---- recording ---------------------------------------------------------------------------------------------------

    def _before(self, module: torch.nn.Module, args: tuple, kwargs: dict) -> tuple:
        on_gpu = any(tensor.is_cuda for tensor in layer_calls.tensors_in((args, kwargs)))
        return on_gpu, report.totals(), _now(on_gpu)

    def _after(self, module: torch.nn.Module, args: tuple, kwargs: dict, output: Any, state: tuple) -> None:
        on_gpu, before, start = state
        entry = self._entry(module)
        self._took(entry, "forward_ms", start, _now(on_gpu))
        fused, reduced, left = (now - then for now, then in zip(report.totals(), before, strict=True))
        entry.calls += 1
        entry.fused += fused
        entry.reduced += reduced
        entry.left += left
        if fused and not entry.configuration and settings.active():
            entry.configuration = _configuration()
        self._finish(self._waiting.pop(id(module), None))
        if torch.is_grad_enabled():
            self._time_backward(module, entry, (args, kwargs), output, on_gpu)

    def _entry(self, module: torch.nn.Module) -> LayerProfile:
        name = self._names.get(module)
        if name is None:
            name = self._names[module] = _name(module)
        return self._entries.setdefault(name, LayerProfile(name, type(module).__name__))

    def _time_backward(self, module: Any, entry: LayerProfile, inputs: tuple, output: Any, on_gpu: bool) -> None:
        """Take the time from the first gradient of an output to the last one of an input or a parameter.

        The gradient of an input that other layers read too is complete only after theirs, so it is not waited for.
        """
        outputs = [t for t in layer_calls.tensors_in(output) if t.requires_grad and not t.is_leaf]
        given = [t for t in layer_calls.tensors_in(inputs) if t.requires_grad]
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not outputs or not (given or parameters):
            return
        backward = self._waiting[id(module)] = _Backward(entry, on_gpu)
        backward.handles += [t.register_hook(backward.begin) for t in outputs]
        backward.handles += [t.register_hook(backward.reach) for t in parameters]
        for t in given:
            other = self._consumers.get(t)
            if other is None or other.done:
                self._consumers[t] = backward
                backward.inputs[id(t)] = t.register_hook(backward.reach)
            elif other is not backward and id(t) in other.inputs:
                other.inputs.pop(id(t)).remove()

    def _finish(self, backward: _Backward | None) -> None:
        if backward is None:
            return
        for handle in (*backward.handles, *backward.inputs.values()):
            handle.remove()
        backward.done = True
        if backward.last is not None:
            self._took(backward.entry, "backward_ms", backward.first, backward.last)

    def _took(self, entry: LayerProfile, kind: str, start: Any, stop: Any) -> None:
        if isinstance(start, float):
            setattr(entry, kind, getattr(entry, kind) + 1e3 * (stop - start))
            return
        self._pending.append((entry, kind, start, stop))
        if len(self._pending) >= _MOST_PENDING:
            self._read(everything=False)

    def _read(self, everything: bool) -> None:
        """Add the times of the events that have passed, or of all of them and of the backward passes so far."""
        if everything:
            for key in list(self._waiting):
                self._finish(self._waiting.pop(key))
        waiting = []
        for entry, kind, start, stop in self._pending:
            if everything:
                stop.synchronize()
            if everything or stop.query():
                setattr(entry, kind, getattr(entry, kind) + start.elapsed_time(stop))
            else:
                waiting.append((entry, kind, start, stop))
        self._pending[:] = waiting


def _now(on_gpu: bool) -> Any:
    if not on_gpu or torch.cuda.is_current_stream_capturing():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _name(module: torch.nn.Module) -> str:
    try:
        text = repr(module)
    except Exception:  # a class of the user's
        return type(module).__name__
    return text if "\n" not in text and len(text) <= _LONGEST_NAME else type(module).__name__


def _configuration() -> str:
    recorded = decider.last_decision()
    if recorded is None:
        return ""
    facts, config = recorded
    parameters = [f"{name} {value}" for name, value in config.parameters().items() if name != "kernel"]
    return ", ".join([f"width {facts.width}", f"kernel {config.kernel}", *parameters])


@contextlib.contextmanager
def profile() -> Iterator[Profile]:
    """Record the graph layers of all models that run inside the block, and return a gnna_plugin.Profile.

    It works whether the plug-in is enabled or not. Layers in code that torch compiles are not recorded.

    >>> import gnna_plugin
    >>> with gnna_plugin.profile() as found:
    ...     pass
    >>> found.layers
    []
    """
    found, stop = start()
    try:
        yield found
    finally:
        stop()


def start() -> tuple[Profile, Callable[[], None]]:
    """Begin a profile, and return it and the function that ends it."""
    found = Profile(_begin=time.perf_counter())
    stop_watching = layer_calls.watch(found._before, found._after)

    def stop() -> None:
        if found._end is None:
            stop_watching()
            found._end = time.perf_counter()
            found._read(everything=True)

    return found, stop
