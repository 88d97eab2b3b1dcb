"""Counters per layer class, the reasons why calls were not fused, and the decisions of launches.

The adapters write here on every call, which is a dictionary update. Everything else happens in status.py.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from gnna_plugin import decider, settings

logger = logging.getLogger("gnna_plugin")


# Reasons that the adapters share.
COMES_ONCE = "too small to gain on the first uses of an edge list"
EXCLUDED = "excluded by only=, skip= or conv.gnna = False"
OUTLIVES = "neighbours' features are used after the layer"


@functools.lru_cache(maxsize=64)
def below(min_work: int) -> str:
    """Return the reason for calls of fewer than min_work elements."""
    return f"too small to gain (below min_work, {min_work:,} elements)"


def calls(n: int) -> str:
    return f"{n:,} call{'' if n == 1 else 's'}"


@dataclass
class Comparison:
    """What verify mode found for one layer class (gnna_plugin/verifying.py).

    Attributes:
        calls: number of calls that were compared with the framework's own path.
        accelerated: number of them in which something ran on the plug-in's kernels.
        output_error, gradient_error: largest difference of any element, relative to the largest element of its tensor.
        tolerance: the largest difference that was accepted.
        differing: what differed in each call beyond the tolerance, such as "gradient of lin.weight: 0.3".
        unchecked: number of calls that could not be compared, by reason.
    """

    calls: int = 0
    accelerated: int = 0
    output_error: float = 0.0
    gradient_error: float = 0.0
    tolerance: float = 0.0
    differing: list[str] = field(default_factory=list)
    unchecked: Counter = field(default_factory=Counter)

    def __str__(self) -> str:
        if self.differing:
            shown = "; ".join(self.differing[:3])
            return f"DIFFERS from the framework's own path in {len(self.differing)} of {calls(self.calls)}: {shown}"
        text = f"{calls(self.calls)} compared with the framework's own path"
        if self.calls and not self.accelerated:
            text += ", but none ran on the plug-in"
        elif self.calls:
            if self.accelerated < self.calls:
                text += f" ({self.accelerated:,} ran on the plug-in)"
            text += f": outputs within {self.output_error:.0e}, gradients within {self.gradient_error:.0e}"
            text += f" (accepted: {self.tolerance:.0e})"
        return "; ".join([text, *(f"{calls(n)} not compared: {reason}" for reason, n in self.unchecked.items())])


@dataclass
class LayerCounts:
    """Counts of the calls of one layer class.

    Attributes:
        fused: aggregations that ran as one kernel, and scores of edges computed from the features of both ends.
        reduced: reductions of existing messages that ran as one kernel. Outside of layers, such as in global pooling,
            they are counted under the class of the aggregation, and softmaxes under "softmax".
        materialised: gathers that became a plain tensor, by the name of the operation that has no fused form.
        framework: gathers that fell back to the framework, by reason.
        examples: by reason, the details of the first such case.
        moved: functions of messages that were computed from the features of the nodes, by name.
        forms: of the messages that were fused, such as "w * x_j" or "relu(a_i + b_j)": j is a neighbour, i the node
            itself, e and w belong to the edge. Layers in compiled code and in DGL have no form.
        fused_work, left_work: elements (edges x width) of the fused calls and reductions, and of the gathers that were
            materialised or fell back. Calls in compiled code are not included, because their sizes are not known.
    """

    fused: int = 0
    reduced: int = 0
    materialised: Counter = field(default_factory=Counter)
    framework: Counter = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    moved: Counter = field(default_factory=Counter)
    forms: Counter = field(default_factory=Counter)
    fused_work: int = 0
    left_work: int = 0

    def notable_forms(self) -> list[str]:
        """Return the forms that are more than weighted features of the neighbours."""
        return sorted(set(self.forms) - {"x_j", "w * x_j"})

    def not_fused(self) -> list[str]:
        """Return a line for each reason why calls were not fused, the most frequent first."""
        return [
            *(f"{calls(n)} not fused: {_why_materialised(op)}" for op, n in self.materialised.most_common()),
            *(
                f"{calls(n)} not fused: {_with_example(reason, self.examples.get(reason, ''))}"
                for reason, n in self.framework.most_common()
            ),
        ]


_layers: dict[str, LayerCounts] = {}
_comparisons: dict[str, Comparison] = {}
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


def fused(layer: str, calls: int = 1, form: str = "", work: int = 0) -> None:
    """Count fused calls. `work` is their number of elements, edges x width; 0 if it is not known."""
    counts = _counts(layer)
    counts.fused += calls
    counts.fused_work += work
    if form:
        counts.forms[form] += calls


def reduced(layer: str, calls: int = 1, work: int = 0) -> None:
    """Count reductions of existing messages, which have `work` elements."""
    counts = _counts(layer)
    counts.reduced += calls
    counts.fused_work += work


def moved(layer: str, function: str) -> None:
    """Count a function of messages that was computed from the features of the nodes."""
    _counts(layer).moved[function] += 1


def materialised(layer: str, operation: str, work: int = 0) -> None:
    """Count a gather of `work` elements that became a plain tensor because `operation` has no fused form."""
    counts = _counts(layer)
    counts.materialised[operation] += 1
    counts.left_work += work
    reason = _why_materialised(operation) + ("" if operation == OUTLIVES else ", which has no fused form")
    _log_once(layer, reason)
    if settings.current.strict:
        _refuse(layer, reason)


def left_to_framework(layer: str, reason: str, example: Callable[[], str] = str, work: int = 0) -> None:
    """Count a gather that falls back to the framework.

    Args:
        reason: one of few, because each is counted and logged.
        work: elements of the gather, edges x width.
        example: returns the details of this case. It is called for the first case of each reason, and in strict mode.

    Raises:
        Fallback: in strict mode, unless the user excluded the layer.
    """
    counts = _counts(layer)
    counts.framework[reason] = n = counts.framework[reason] + 1
    counts.left_work += work
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
    num_dst, edges = out.size(0), dst.numel()
    width = out.numel() // num_dst if num_dst else 0
    fused(layer, form="x_j" if weight is None else "w * x_j", work=edges * width)
    if _watcher is not None:
        _watcher(layer, x, weight, src, dst, out, reduce)
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


def compared(layer: str) -> Comparison:
    """Return what verify mode has found for a layer class so far, for verify mode to add to."""
    with _lock:
        return _comparisons.setdefault(layer, Comparison())


def totals() -> tuple[int, int, int]:
    """Return the numbers of fused calls, of reductions, and of gathers that were not fused, of all layers."""
    every = list(_layers.values())
    left = sum(sum(c.materialised.values()) + sum(c.framework.values()) for c in every)
    return sum(c.fused for c in every), sum(c.reduced for c in every), left


def snapshot() -> tuple[dict[str, LayerCounts], dict[str, Comparison], list[dict]]:
    """Return copies of the counters and comparisons by layer class, and the decisions."""
    with _lock:
        return copy.deepcopy(_layers), copy.deepcopy(_comparisons), list(_decisions.values())


def reset() -> None:
    """Forget all counters, comparisons and decisions."""
    with _lock:
        _layers.clear()
        _comparisons.clear()
        _decisions.clear()
        _logged.clear()


@contextlib.contextmanager
def fresh() -> Iterator[None]:
    """Count from zero inside the block, and restore the counts from before afterwards."""
    global _layers, _comparisons, _decisions, _logged
    with _lock:
        before = _layers, _comparisons, _decisions, _logged
        _layers, _comparisons, _decisions, _logged = {}, {}, {}, set()
    try:
        yield
    finally:
        with _lock:
            _layers, _comparisons, _decisions, _logged = before
