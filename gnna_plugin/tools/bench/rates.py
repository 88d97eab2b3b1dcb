"""Measures the rates of the machine's memory: gathering random rows, and copying.

The floor of an aggregation is the time of moving its bytes at the gather rate for rows and tables of its size. The rate
is that of uniformly random accesses. An aggregation can be faster if neighbours have near ids or hubs stay in a cache.
"""

from __future__ import annotations

import functools

import torch
from torch.nn import functional as F

from gnna_plugin.tools.bench.timing import Rounds, time_calls

_BAG = 64  # rows per sum, so that the bytes written are 1/64 of the bytes read
_LEAST, _MOST = 1 << 18, 1 << 30  # at most 16 * _LEAST rows and _MOST bytes are read


@functools.cache
def gather_gbs(
    nodes: int, width: int, dtype: torch.dtype, device: torch.device, cpu_time: bool = False
) -> tuple[float, str]:
    """Measure the rate of reading and summing random rows of a table.

    The table has ``nodes`` rows of ``width`` elements. Two programs that share no code are timed: torch's
    embedding_bag, and the plug-in's spmm on a random graph.

    Returns:
        (GB/s, program) of the faster program. Only the bytes of the rows are counted.
    """
    row_bytes = max(width, 1) * dtype.itemsize
    bags = max(1, min(_LEAST * 16, _MOST // row_bytes) // _BAG)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, max(nodes, 1), (bags, _BAG), generator=generator).to(device)
    x = torch.rand(max(nodes, 1), max(width, 1), generator=generator).to(device, dtype)
    src, dst = index.flatten(), torch.arange(bags, device=device).repeat_interleave(_BAG)
    programs = {
        "embedding_bag": lambda _: F.embedding_bag(index, x, mode="sum"),
        "spmm": lambda _: torch.ops.gnna.spmm(x, None, src, dst, bags, "sum"),
    }
    timings, _ = time_calls(programs, device, Rounds(5, 0.02, 5, cpu_time))
    best = min(timings, key=lambda name: timings[name].ms)
    return index.numel() * row_bytes / timings[best].ms / 1e6, best


@functools.cache
def copy_gbs(device: torch.device, cpu_time: bool = False) -> float:
    """Measure the GB/s, reads plus writes, of copying a buffer.

    The buffer is larger than every cache.
    """
    a = torch.empty(1 << 28, dtype=torch.uint8, device=device).fill_(1)
    b = torch.empty_like(a)
    timings, _ = time_calls({"copy": lambda _: b.copy_(a)}, device, Rounds(5, 0.05, 5, cpu_time))
    return 2 * a.numel() / timings["copy"].ms / 1e6


def floors(gathered: int, streamed: int, once: int, table: tuple, cpu_time: bool) -> dict:
    """Compute the two floors of a kernel.

    Args:
        gathered: bytes of the rows that are read at random.
        streamed: bytes that move once (ids, weights, results).
        once: bytes of the gathered table, which must be read at least once.
        table: (rows, width, dtype, device) of the gathered table.
        cpu_time: measure the rates in CPU time.

    Returns:
        The floors in ms and the rates that they are computed from, as fields of a row.
    """
    gather, program = gather_gbs(*table, cpu_time)
    copy = copy_gbs(table[-1], cpu_time)
    return {
        "gather_floor_ms": (gathered + streamed) / gather / 1e6,
        "compulsory_floor_ms": (once + streamed) / copy / 1e6,
        "gather_gbs": gather,
        "gather_program": program,
        "copy_gbs": copy,
    }
