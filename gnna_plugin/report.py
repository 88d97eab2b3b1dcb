"""Counters per layer class, the reasons why calls were not fused, and the decisions of launches.

The adapters write here on every call, which is a dictionary update. Everything else happens in status().
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gnna_plugin import allocator, decider, notebook, settings
from gnna_plugin.schedules import Schedule, schedules

logger = logging.getLogger("gnna_plugin")


# Reasons that the adapters share.
BELOW = "too small to gain (below min_work)"
COMES_ONCE = "too small to gain on the first uses of an edge list"
EXCLUDED = "excluded by only=, skip= or conv.gnna = False"
OUTLIVES = "neighbours' features are used after the layer"


def _calls(n: int) -> str:
    return f"{n} call{'' if n == 1 else 's'}"


@dataclass
class LayerCounts:
    """Counts of the calls of one layer class.

    Attributes:
        fused: aggregations that ran as one kernel, and scores of edges computed from the features of both ends.
        reduced: reductions of existing messages that ran as one kernel, under the class of the aggregation.
        materialised: gathers that became a plain tensor, by the name of the operation that has no fused form.
        framework: gathers that fell back to the framework, by reason.
        examples: by reason, the details of the first such case.
        moved: functions of messages that were computed from the features of the nodes, by name.
        forms: of the messages that were fused, such as "w * x_j" or "relu(a_i + b_j)": j is a neighbour, i the node
            itself, e and w belong to the edge. Layers in compiled code and in DGL have no form.
    """

    fused: int = 0
    reduced: int = 0
    materialised: Counter = field(default_factory=Counter)
    framework: Counter = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    moved: Counter = field(default_factory=Counter)
    forms: Counter = field(default_factory=Counter)

    def notable_forms(self) -> list[str]:
        """Return the forms that are more than weighted features of the neighbours."""
        return sorted(set(self.forms) - {"x_j", "w * x_j"})

    def not_fused(self) -> list[str]:
        """Return a line for each reason why calls were not fused, the most frequent first."""
        return [
            *(f"{_calls(n)} not fused: {_why_materialised(op)}" for op, n in self.materialised.most_common()),
            *(
                f"{_calls(n)} not fused: {_with_example(reason, self.examples.get(reason, ''))}"
                for reason, n in self.framework.most_common()
            ),
        ]


_layers: dict[str, LayerCounts] = {}
_decisions: dict[tuple, dict] = {}
_logged: set[tuple[str, str]] = set()
_watcher: Callable | None = None
_lock = threading.Lock()


def _counts(layer: str) -> LayerCounts:
    counts = _layers.get(layer)
    if counts is None:
        with _lock:
            counts = _layers.setdefault(layer, LayerCounts())
    return counts


def fused(layer: str, calls: int = 1, form: str = "") -> None:
    counts = _counts(layer)
    counts.fused += calls
    if form:
        counts.forms[form] += calls


def reduced(layer: str, calls: int = 1) -> None:
    _counts(layer).reduced += calls


def moved(layer: str, function: str) -> None:
    """Count a function of messages that was computed from the features of the nodes."""
    _counts(layer).moved[function] += 1


def materialised(layer: str, operation: str) -> None:
    """Count a gather that became a plain tensor because `operation` has no fused form."""
    _counts(layer).materialised[operation] += 1
    reason = _why_materialised(operation) + ("" if operation == OUTLIVES else ", which has no fused form")
    _log_once(layer, reason)
    if settings.current.strict:
        _refuse(layer, reason)


def left_to_framework(layer: str, reason: str, example: Callable[[], str] = str) -> None:
    """Count a gather that falls back to the framework.

    Args:
        reason: one of few, because each is counted and logged.
        example: returns the details of this case. It is called for the first case of each reason, and in strict mode.

    Raises:
        Fallback: in strict mode, unless the user excluded the layer.
    """
    counts = _counts(layer)
    counts.framework[reason] = n = counts.framework[reason] + 1
    if n == 1:
        counts.examples[reason] = example()
        _log_once(layer, _with_example(reason, counts.examples[reason]))
    if settings.current.strict and reason != EXCLUDED:
        _refuse(layer, _with_example(reason, example()))


def _why_materialised(operation: str) -> str:
    return operation if operation == OUTLIVES else f"the message uses `{operation}`"


def _with_example(reason: str, example: str) -> str:
    return f"{example}, {reason}" if example else reason


def _log_once(layer: str, reason: str) -> None:
    if (layer, reason) not in _logged:
        with _lock:
            _logged.add((layer, reason))
        logger.info("%s is not fused: %s", layer, reason)


def _refuse(layer: str, reason: str) -> None:
    raise settings.Fallback(
        f"{layer} is not fused: {reason}; strict=True accepts fused calls only, strict=False lets the framework run it"
    )


def aggregated(
    layer: str, x: Tensor, weight: Tensor | None, src: Tensor, dst: Tensor, out: Tensor, reduce: str
) -> None:
    """Count a fused aggregation of x [N, *S] over the edges (src, dst) into out [M, *S], and keep its decision.

    Called right after the op, on the same thread, because the decision is the one that the op recorded last. One is
    kept per layer class, power of two of edges, width, reduction, dtype, device and config, because mini-batches differ
    in size a thousand times over.
    """
    fused(layer, form="x_j" if weight is None else "w * x_j")
    if _watcher is not None:
        _watcher(layer, x, weight, src, dst, out, reduce)
    num_dst, edges = out.size(0), dst.numel()
    width = out.numel() // num_dst if num_dst else 0
    key = (layer, edges.bit_length(), width, reduce, weight is None, out.dtype, out.device, settings.current.config)
    if not edges or key in _decisions:
        return
    recorded = decider.last_decision()
    if recorded is None:
        return
    facts, config = recorded
    _decisions[key] = {
        "layer": layer,
        "rows": facts.rows,
        "cols": facts.cols,
        "edges": facts.edges,
        "max_degree": facts.max_degree,
        "width": facts.width,
        "heads": facts.width // facts.head_dim if facts.weighted else 1,
        "reduce": facts.reduce,
        "weighted": facts.weighted,
        "dtype": str(x.dtype).removeprefix("torch."),
        "device": str(x.device),
        **config.as_dict(),
    }


@contextlib.contextmanager
def watched_by(watcher: Callable) -> Iterator[None]:
    """Call `watcher` with the arguments of every `aggregated` inside the block."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


def reset() -> None:
    """Forget all counters and decisions."""
    with _lock:
        _layers.clear()
        _decisions.clear()
        _logged.clear()


@contextlib.contextmanager
def fresh() -> Iterator[None]:
    """Count from zero inside the block, and restore the counts from before afterwards."""
    global _layers, _decisions, _logged
    with _lock:
        before = _layers, _decisions, _logged
        _layers, _decisions, _logged = {}, {}, set()
    try:
        yield
    finally:
        with _lock:
            _layers, _decisions, _logged = before


@dataclass(frozen=True)
class Status:
    """A snapshot of the counters, as status() returns it. str() is a summary for people, as_dict() for programs."""

    frameworks: list[str]
    layers: dict[str, LayerCounts]
    decisions: list[dict]
    plans: int
    plan_bytes: int
    plan_hits: int
    plan_misses: int
    capture_bytes: int  # held for captured CUDA graphs, see release_captures()
    keeps_freed_memory: bool
    schedules: list[Schedule]

    @property
    def fused_calls(self) -> int:
        return sum(counts.fused for counts in self.layers.values())

    @property
    def fallback_calls(self) -> int:
        return sum(c.materialised.total() + c.framework.total() for c in self.layers.values())

    def as_dict(self) -> dict:
        return {
            "frameworks": self.frameworks,
            "fused_calls": self.fused_calls,
            "fallback_calls": self.fallback_calls,
            "layers": {
                name: {
                    "fused": c.fused,
                    "reduced": c.reduced,
                    "materialised": dict(c.materialised),
                    "framework": dict(c.framework),
                    "examples": dict(c.examples),
                    "moved": dict(c.moved),
                    "forms": dict(c.forms),
                }
                for name, c in self.layers.items()
            },
            "decisions": self.decisions,
            "plans": self.plans,
            "plan_bytes": self.plan_bytes,
            "plan_hits": self.plan_hits,
            "plan_misses": self.plan_misses,
            "capture_bytes": self.capture_bytes,
            "keeps_freed_memory": self.keeps_freed_memory,
            "schedules": [s.as_dict() for s in self.schedules],
        }

    def _headline(self) -> str:
        on = ", ".join(self.frameworks) if self.frameworks else "off"
        return (
            f"gnna_plugin: {on}; {_calls(self.fused_calls)} fused, {self.fallback_calls} not; "
            f"{self.plans} plans, {self.plan_bytes / 2**20:.1f} MiB"
        )

    def __str__(self) -> str:
        lines = [self._headline()]
        if self.frameworks and not self.layers:
            lines.append("  no layer has reached the plug-in yet")
        if self.capture_bytes:
            lines.append(f"  held for captured CUDA graphs: {self.capture_bytes / 2**20:.1f} MiB")
        for name, counts in sorted(self.layers.items()):
            done = f"{counts.reduced} reductions in one kernel" if counts.reduced else f"{_calls(counts.fused)} fused"
            lines.append(f"  {name}: {done}")
            if counts.moved:
                lines.append(f"    message moved to nodes: {', '.join(sorted(counts.moved))}")
            if forms := counts.notable_forms():
                lines.append(f"    messages: {'; '.join(forms)}")
            lines += [f"    {text}" for text in counts.not_fused()]
        for d in self.decisions:
            call = f"{d['edges']:,} edges x {d['width']} {d['dtype']}, {d['reduce']} on {d['device']}"
            lines.append(f"  {d['layer']}: {call}: {d['reason']}")
        lines += [f"  schedule of {s}" for s in self.schedules if s.state != "watching"]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [
            (
                name,
                c.fused,
                c.reduced,
                [*sorted(c.forms), *(f"{f} moved to nodes" for f in sorted(c.moved))],
                c.not_fused(),
            )
            for name, c in sorted(self.layers.items())
        ]
        return notebook.table(self._headline(), ("layer", "fused", "reduced", "messages", "not fused"), rows)


def status() -> Status:
    """Return a snapshot of what the plug-in has done in this process so far, as a gnna_plugin.Status.

    `gnna_plugin.reset_status()` counts from zero again.
    """
    plans, plan_bytes, hits, misses, _ = torch.ops.gnna.cache_info()
    with _lock:
        layers = {
            n: LayerCounts(
                c.fused,
                c.reduced,
                Counter(c.materialised),
                Counter(c.framework),
                dict(c.examples),
                Counter(c.moved),
                Counter(c.forms),
            )
            for n, c in _layers.items()
        }
        decisions = list(_decisions.values())
    return Status(
        list(settings.enabled_frameworks),
        layers,
        decisions,
        plans,
        plan_bytes,
        hits,
        misses,
        torch.ops.gnna.captures()[1],
        allocator.kept(),
        schedules(),
    )
