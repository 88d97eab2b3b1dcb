"""Measures min_work: the smallest work (edges x width) at which the plug-in is no slower than the framework.

Training steps of one layer on random graphs of growing size run plain and accelerated in turn. On a GPU, steps follow
one another without a wait, because small graphs are limited by the host, which does more with the plug-in on.
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
    """Yield a row per layer, edges and width: work, plain_us, accelerated_us and left_us.

    left_us is the time with the plug-in on and every call falling back to the framework.

    Args:
        steps: function of (edges, width, device) that returns {layer: a function that runs one training step}.
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
    """Return the smallest work from which on the median layer takes at most ``slack`` times the plain time.

    The result is one above the largest measured work if that is slower, too.
    """
    by_work: dict[int, list[float]] = {}
    for row in rows:
        by_work.setdefault(row["work"], []).append(row["accelerated_us"] / row["plain_us"])
    answer = max(by_work) + 1
    for work in sorted(by_work, reverse=True):
        if median_and_spread(by_work[work])[0] > slack:
            break
        answer = work
    return answer
