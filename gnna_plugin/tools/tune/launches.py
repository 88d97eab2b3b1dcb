"""Finds the aggregations of a model's forward and backward pass on a GPU, and times launches of them.

The result of each candidate is compared with that of the decider's choice before it is timed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gnna_plugin import report, settings
from gnna_plugin.decider import Facts, decide, overrides_of
from gnna_plugin.tools.bench.timing import Rounds, buffers, time_calls
from gnna_plugin.tools.tune.search import Found, search

_TOLERANCE = {4: 1e-4, 8: 1e-11, 2: 2e-2}  # by bytes per element, relative to the largest


@dataclass(frozen=True, eq=False)
class Launch:
    """One aggregation over the edges col -> row, with a weight per edge and head or without weights."""

    facts: Facts
    row: Tensor
    col: Tensor
    feature_shape: tuple[int, ...]
    weight_shape: tuple[int, ...] | None
    dtype: torch.dtype


def launches_of(forward) -> list[Launch]:
    """Return the distinct aggregations of forward(), which runs a model with the plug-in on, and of its gradient."""
    found: dict[Facts, Launch] = {}

    def note(layer, x, weight, src, dst, out, reduce):
        heads = 1 if weight is None else weight.numel() // max(src.numel(), 1)
        ways = [(dst, src, out.size(0), x.size(0), reduce)]
        if reduce in ("sum", "mean"):  # whose gradient is a sum over the reversed edges
            ways.append((src, dst, x.size(0), out.size(0), "sum"))
        for row, col, rows, cols, kind in ways:
            width = out.numel() // max(out.size(0), 1)
            facts = Facts(
                rows=rows,
                cols=cols,
                edges=row.numel(),
                max_degree=torch.ops.gnna.max_degree(col, row, cols, rows),
                width=width,
                head_dim=width // heads,
                itemsize=x.element_size(),
                weighted=weight is not None,
                reduce=kind,
            )
            shape = None if weight is None else tuple(weight.shape)
            found.setdefault(facts, Launch(facts, row, col, tuple(out.shape[1:]), shape, x.dtype))

    with report.watched_by(note):
        forward()
    return list(found.values())


@contextlib.contextmanager
def timed(launch: Launch, rounds: Rounds) -> Iterator[tuple[Callable, Callable]]:
    """Yield (decided, time_of) for a launch, as search.search takes them.

    The overrides of the process change inside the block and are empty after it. Plans keep their order of rows, so all
    candidates are timed in the same one. time_of raises RuntimeError if a configuration gives a wrong result.
    """
    device, facts = launch.row.device, launch.facts
    copies = buffers(facts.cols * facts.width * facts.itemsize * 2, device)
    inputs = [torch.randn(facts.cols, *launch.feature_shape, device=device, dtype=launch.dtype) for _ in range(copies)]
    weight = None
    if launch.weight_shape is not None:
        weight = torch.rand(launch.weight_shape, device=device, dtype=launch.dtype)

    def call(i):
        return torch.ops.gnna.spmm(inputs[i], weight, launch.col, launch.row, facts.rows, facts.reduce)

    def decided(partial):
        return decide(facts, device, partial).parameters()

    torch.ops.gnna.set_auto_schedule(False)
    torch.ops.gnna.set_overrides(overrides_of(decided({})))
    expected = call(0)
    allowed = _TOLERANCE[facts.itemsize] * float(expected.abs().max().clamp(min=1e-30))

    def time_of(config):
        torch.ops.gnna.set_overrides(overrides_of(config))
        try:
            result = call(0)
            torch.cuda.synchronize(device)
        except RuntimeError:  # more threads or memory than the device has
            return None
        if not float((result - expected).abs().max()) <= allowed:
            raise RuntimeError(f"configuration {config} gives a wrong result; please report it")
        return time_calls({"launch": call}, device, rounds, copies)[0]["launch"].ms

    try:
        yield decided, time_of
    finally:
        torch.ops.gnna.set_overrides(overrides_of(None))
        torch.ops.gnna.set_auto_schedule(settings.current.schedule)


def tune(launch: Launch, rounds: Rounds) -> Found:
    """Return the best configuration of a launch on its GPU. Raises as `timed` does."""
    with timed(launch, rounds) as (decided, time_of):
        return search(decided, time_of)
