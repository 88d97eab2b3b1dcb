"""Times calls in rounds. A round runs all calls of a case in turn, so that a disturbance affects all of them.

A sample is the mean over calls that fill a slice of time: by the wall clock on a CPU, between two events on CUDA. CUDA
calls under 0.4 ms are timed again as a captured graph of back-to-back launches, which excludes the host. Rounds in
which other processes used part of a core are repeated, up to a limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gnna_plugin.tools.compare.measure import OtherWork, median_and_spread

CAPTURE_BELOW_MS = 0.4
# Starting a captured graph costs about 10 us (H200), so short calls share it among more launches.
CAPTURED_LAUNCHES, CAPTURED_SHORT_LAUNCHES, SHORT_MS = 8, 64, 0.1
ROTATED_BYTES = 160 << 20  # larger than a GPU's L2 cache, which would otherwise hold the operands of the launch before
MOST_BUFFERS = 8
_TAKEN_CORES = 0.1  # a round in which other processes used more cores is repeated


@dataclass(frozen=True)
class Timing:
    """The time of a call.

    Attributes:
        ms: milliseconds per call, the median over the rounds.
        spread_ms: interquartile range over the rounds.
        how: "clock" or "CPU time" on a CPU, "events" or "graph" (a captured graph) on CUDA.
        eager_ms: for "graph", the milliseconds per call between events, without capture.
    """

    ms: float
    spread_ms: float
    how: str
    eager_ms: float | None = None


@dataclass(frozen=True)
class Rounds:
    """The rounds of a measurement.

    Attributes:
        count: number of rounds that count.
        slice_s: seconds per call in a round.
        spare: number of further rounds that may replace busy ones.
        cpu_time: measure the CPU time of the process instead of the wall clock. With one thread, this is reliable also
            while other processes use the machine.
    """

    count: int = 7
    slice_s: float = 0.05
    spare: int = 7
    cpu_time: bool = False


def buffers(bytes_each: int, device: torch.device) -> int:
    """Return the number of copies of the operands that calls rotate over.

    It is 1 on a CPU. On CUDA it is at most 8, and the copies take at most 160 MiB unless one alone takes more.
    """
    if device.type != "cuda":
        return 1
    return max(1, min(MOST_BUFFERS, ROTATED_BYTES // max(bytes_each, 1)))


def time_calls(
    calls: dict[str, Callable[[int], Any]], device: torch.device, rounds: Rounds = Rounds(), copies: int = 1
) -> tuple[dict[str, Timing], float]:
    """Time every call.

    Args:
        calls: {name: call}. A call is a function of the number of the buffer to use, below ``copies``.
        device: device of the calls.
        rounds: the Rounds.
        copies: number of buffers.

    Returns:
        {name: Timing}, and the most cores that other processes used in a round that counts.
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
    """Run ``count`` calls and return the milliseconds per call."""
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
    """Capture a graph of ``count`` calls and return the milliseconds per call.

    The list has an entry for each replay. Returns None if the call cannot be captured.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.stream(torch.cuda.Stream()):
            call(0)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            kept = [call(i % copies) for i in range(count)]  # so that every result has its own buffer
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
