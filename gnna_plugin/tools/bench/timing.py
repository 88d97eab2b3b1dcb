"""How a call is timed: in rounds, all calls of a case in turn, so that a disturbance meets all of them alike.

On a CPU a sample is the mean over calls that fill a slice of time, by the wall clock. On CUDA it is the same between
two events; calls under 0.4 ms are timed again as a captured graph of back-to-back launches, which leaves the kernels
alone. Rounds during which other processes took part of a core are repeated, up to a limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gnna_plugin.tools.compare.measure import OtherWork, median_and_spread

CAPTURE_BELOW_MS = 0.4
# Starting a captured graph costs some 10 us (H200): shared by 64 launches that is under 0.2 us each.
CAPTURED_LAUNCHES, CAPTURED_SHORT_LAUNCHES, SHORT_MS = 8, 64, 0.1
ROTATED_BYTES = 160 << 20  # so that a GPU's L2 cache does not still hold what the launch before read
MOST_BUFFERS = 8
_TAKEN_CORES = 0.1  # more than this in a round, and it is repeated


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call: the median over the rounds and their interquartile range.

    ``how``: "clock" or "CPU time" (CPU), "events" or "graph" (CUDA), and then ``eager_ms`` is the time between events.
    """

    ms: float
    spread_ms: float
    how: str
    eager_ms: float | None = None


@dataclass(frozen=True)
class Rounds:
    """``count`` rounds of ``slice_s`` seconds per call, and up to ``spare`` more to replace busy ones.

    ``cpu_time`` counts the process's CPU time instead of the wall clock's: with one thread, a measure that holds on a
    machine which others use.
    """

    count: int = 7
    slice_s: float = 0.05
    spare: int = 7
    cpu_time: bool = False


def buffers(bytes_each: int, device: torch.device) -> int:
    """How many copies of the operands a case rotates over: 1 on a CPU, up to 8 or 160 MiB in all on CUDA."""
    if device.type != "cuda":
        return 1
    return max(1, min(MOST_BUFFERS, ROTATED_BYTES // max(bytes_each, 1)))


def time_calls(
    calls: dict[str, Callable[[int], Any]], device: torch.device, rounds: Rounds = Rounds(), copies: int = 1
) -> tuple[dict[str, Timing], float]:
    """Times each call, a function of the number of the buffer to use (below ``copies``).

    Returns the timings by name, and the cores that other processes took in the rounds that count (0.0 where quiet).
    """
    counts = {name: _calls_per_slice(call, device, rounds, copies) for name, call in calls.items()}
    found = []  # (cores taken by others, {name: ms})
    for _ in range(rounds.count + rounds.spare):
        others = OtherWork()
        found.append(
            [0.0, {name: _slice(call, device, counts[name], copies, rounds.cpu_time) for name, call in calls.items()}]
        )
        if not rounds.cpu_time:
            found[-1][0] = others.missing_cores(torch.get_num_threads()) or 0.0
        if sum(taken <= _TAKEN_CORES for taken, _ in found) >= rounds.count:
            break
    kept = sorted(found, key=lambda item: item[0])[: rounds.count]
    timings = {}
    for name, call in calls.items():
        ms, spread = median_and_spread([samples[name] for _, samples in kept])
        timings[name] = Timing(
            ms, spread, "events" if device.type == "cuda" else "CPU time" if rounds.cpu_time else "clock"
        )
        if device.type == "cuda" and ms < CAPTURE_BELOW_MS:
            launches = CAPTURED_SHORT_LAUNCHES if ms < SHORT_MS else CAPTURED_LAUNCHES
            captured = _captured(call, max(launches, copies), copies, rounds.count)
            if captured is not None:
                timings[name] = Timing(*median_and_spread(captured), "graph", ms)
    return timings, max(taken for taken, _ in kept)


def _calls_per_slice(call: Callable, device: torch.device, rounds: Rounds, copies: int) -> int:
    for i in range(min(2, copies) + 1):
        call(i % copies)
    spent = min(_slice(call, device, 1, copies, rounds.cpu_time) for _ in range(2)) / 1e3
    if spent * 4 < rounds.slice_s:
        spent = _slice(call, device, 4, copies, rounds.cpu_time) / 1e3
    return max(1, round(rounds.slice_s / max(spent, 1e-7)))


def _slice(call: Callable, device: torch.device, count: int, copies: int, cpu_time: bool) -> float:
    """Milliseconds per call over ``count`` calls."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        for i in range(count):
            call(i % copies)
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / count
    clock = time.process_time if cpu_time else time.perf_counter
    start = clock()
    for i in range(count):
        call(i % copies)
    return (clock() - start) / count * 1e3


def _captured(call: Callable, count: int, copies: int, replays: int) -> list[float] | None:
    """Milliseconds per call in each replay of a graph of ``count`` calls; None where the call cannot be captured."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.stream(torch.cuda.Stream()):
            call(0)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            kept = [call(i % copies) for i in range(count)]  # every result keeps a buffer of its own
        del kept
    except RuntimeError:
        torch.cuda.synchronize()
        return None
    times = []
    for _ in range(replays + 1):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / count)
    return times[1:]
