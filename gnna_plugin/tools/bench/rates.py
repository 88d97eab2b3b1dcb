"""What the machine's memory allows, measured in the same run: the rate of gathering rows at random, and of copying.

The floor of an aggregation is the bytes it has to move at the gather rate of rows and tables of its size. That models
uniformly random access: graphs whose ids carry locality, or whose hubs stay in a cache, beat it.
"""

from __future__ import annotations

import functools

import torch
from torch.nn import functional as F

from gnna_plugin.tools.bench.timing import Rounds, time_calls

_BAG = 64  # rows per sum: the output is then 1/64 of what is read
_LEAST, _MOST = 1 << 18, 1 << 30  # rows read, bytes read


@functools.cache
def gather_gbs(
    nodes: int, width: int, dtype: torch.dtype, device: torch.device, cpu_time: bool = False
) -> tuple[float, str]:
    """(GB/s, program): the rate of reading and summing random rows of ``width`` elements of a table of ``nodes``.

    The faster of two programs that share no code: torch's embedding_bag, and this library's spmm on a random graph.
    Bytes are those of the rows only.
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
    """GB/s of copying a buffer beyond every cache, reads and writes counted."""
    a = torch.empty(1 << 28, dtype=torch.uint8, device=device).fill_(1)
    b = torch.empty_like(a)
    timings, _ = time_calls({"copy": lambda _: b.copy_(a)}, device, Rounds(5, 0.05, 5, cpu_time))
    return 2 * a.numel() / timings["copy"].ms / 1e6


def floors(gathered: int, streamed: int, once: int, table: tuple, cpu_time: bool) -> dict:
    """The two floors of a kernel in ms, and the rates behind them, as the fields of a row.

    gathered: bytes of the rows read at random; streamed: bytes that pass once (ids, weights, results); once: bytes of
    the gathered table, which has to be read at least once; table: its (rows, width, dtype, device).
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
