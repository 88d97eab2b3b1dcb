"""`gnna bench host`: times the host's work in calls on a graph so small that kernels do not matter, with one thread.

There is a table for the ops and one for the message passing of each framework. Message passing runs plain, accelerated,
and "left to the framework": enabled with a min_work so large that every call falls back. The last one shows what the
plug-in costs a small layer. "framework's own part" is message passing without gather and reduction; the rest of an
accelerated call is the plug-in's. Times are CPU time on a CPU, and the time between events on CUDA.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

import gnna_plugin
from gnna_plugin.frameworks import FRAMEWORKS
from gnna_plugin.tools.bench import peers
from gnna_plugin.tools.bench.timing import Rounds, time_calls
from gnna_plugin.tools.compare.measure import median_and_spread

_NODES, _EDGES, _WIDTH = 100, 500, 8
_MODES = {"plain": None, "accelerated": 0, "left to the framework": 1 << 60}


def cases(device: torch.device, rounds: Rounds) -> Iterator[tuple[list[dict], dict]]:
    """Yield (rows, {framework: reason}) of the ops and of each framework.

    Times are in microseconds per call.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield _ops(device, rounds), {}
        for framework in FRAMEWORKS:
            module = peers.adapter(framework)
            if not isinstance(module, str):
                yield _framework(framework, module.host_calls(*_graph(device), _NODES, _WIDTH), device, rounds), {}
    finally:
        torch.set_num_threads(threads)


def _graph(device):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randint(0, _NODES, (_EDGES,), generator=generator).to(device) for _ in range(2))


def _ops(device: torch.device, rounds: Rounds) -> list[dict]:
    """Time the ops on one edge of width 1.

    The time is that of dispatch, checks, plan lookup and allocation of the output.
    """
    src, dst = torch.zeros(1, dtype=torch.int64, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    x, weight = torch.rand(1, 1, device=device), torch.rand(1, device=device)
    leaf = x.clone().requires_grad_()
    ops = torch.ops.gnna
    kept = ops.spmm(leaf, None, src, dst, 1, "sum")
    grad = torch.ones_like(kept)
    calls = {
        "empty tensor (torch.empty)": lambda _: torch.empty(1, 1, device=device),
        "spmm": lambda _: ops.spmm(x, None, src, dst, 1, "sum"),
        "spmm, weighted": lambda _: ops.spmm(x, weight, src, dst, 1, "sum"),
        "spmm, recorded for its gradient": lambda _: ops.spmm(leaf, None, src, dst, 1, "sum"),
        "spmm, gradient alone": lambda _: torch.autograd.grad(kept, leaf, grad, retain_graph=True),
        "sddmm": lambda _: ops.sddmm(x, x, src, dst, 0),
        "segment_reduce": lambda _: ops.segment_reduce(x, dst, 1, "sum"),
        "gnna_plugin.spmm, edges listed afresh": lambda _: gnna_plugin.spmm(x, torch.stack([src, dst])),
    }
    timings, taken = time_calls(calls, device, Rounds(rounds.count, 0.02, rounds.spare, cpu_time=device.type == "cpu"))
    return [
        {
            "operation": "op calls, 1 edge x 1, host time",
            "peer": name,
            "us": (t.eager_ms or t.ms) * 1e3,
            "spread_us": t.spread_ms * 1e3,
            "missing_cores": taken,
        }
        for name, t in timings.items()
    ]


def _framework(framework: str, calls: dict, device: torch.device, rounds: Rounds) -> list[dict]:
    found = {(name, mode): [] for name in calls for mode in _MODES}
    worst = 0.0
    for _ in range(rounds.count):
        for mode, min_work in _MODES.items():
            gnna_plugin.disable()
            if min_work is not None:
                gnna_plugin.enable(framework, min_work=min_work, keep_memory=False)
            timings, taken = time_calls(
                {n: lambda _, c=c: c() for n, c in calls.items()}, device, Rounds(1, 0.02, 2, device.type == "cpu")
            )
            worst = max(worst, taken)
            for name, timing in timings.items():
                found[name, mode].append((timing.eager_ms or timing.ms) * 1e3)
    gnna_plugin.disable()
    rows = []
    for (name, mode), samples in found.items():
        us, spread = median_and_spread(samples)
        rows.append(
            {
                "operation": f"{framework} calls, {_EDGES} edges x {_WIDTH}, host time",
                "peer": f"{name}, {mode}",
                "us": us,
                "spread_us": spread,
                "missing_cores": worst,
            }
        )
    return rows
