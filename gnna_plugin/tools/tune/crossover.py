"""A device's min_work: from which work (edges x width) the plug-in is not slower than the framework's own path.

A training step of one layer on random graphs of growing size, plain and accelerated in turn. On a GPU small graphs wait
for the host, whose path through the plug-in is longer; the steps follow one another without waiting for the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

import gnna_plugin
from gnna_plugin.tools.bench.timing import Rounds, time_calls
from gnna_plugin.tools.compare.measure import median_and_spread

EDGES = {
    "cpu": (300, 1000, 3000, 10_000, 30_000, 100_000),
    "cuda": (3000, 10_000, 30_000, 100_000, 300_000, 1_000_000),
}
WIDTHS = (16, 64)


def measure(steps: Callable, framework: str, device: torch.device, rounds: Rounds) -> Iterator[dict]:
    """A row per layer, edges and width: work, plain_us, accelerated_us, left_us (on, but left to the framework).

    ``steps``: function of (edges, width, device) that gives {layer: a training step of it}.
    """
    modes = {"plain": None, "accelerated": 0, "left": 1 << 60}
    for edges in EDGES[device.type]:
        for width in WIDTHS:
            calls = {name: lambda _, step=step: step() for name, step in steps(edges, width, device).items()}
            found = {(name, mode): [] for name in calls for mode in modes}
            for _ in range(rounds.count):
                for mode, min_work in modes.items():
                    if min_work is None:
                        gnna_plugin.disable()
                    else:
                        gnna_plugin.enable(framework, min_work=min_work, keep_memory=False)
                    timings, _ = time_calls(calls, device, Rounds(1, rounds.slice_s, 2))
                    for name, timing in timings.items():
                        found[name, mode].append((timing.eager_ms or timing.ms) * 1e3)
            gnna_plugin.disable()
            for name in calls:
                us = {f"{mode}_us": median_and_spread(found[name, mode])[0] for mode in modes}
                yield {"layer": name, "edges": edges, "width": width, "work": edges * width, **us}


def least_work(rows: list[dict], slack: float = 1.02) -> int:
    """The smallest work from which on no layer is slower, in the median over layers of each size, than ``slack`` times
    the plain path; one above the largest measured work where even that is slower."""
    by_work: dict[int, list[float]] = {}
    for row in rows:
        by_work.setdefault(row["work"], []).append(row["accelerated_us"] / row["plain_us"])
    answer = max(by_work) + 1
    for work in sorted(by_work, reverse=True):
        if median_and_spread(by_work[work])[0] > slack:
            break
        answer = work
    return answer
