"""The decider as Python sees it: one value for a configuration, from the pure function in csrc/cpu/decide.cpp that the
kernels' launches use themselves. Facts in, configuration and reason out; nothing is stored, so layers cannot influence
each other.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Config:
    """How one aggregation is launched.

    `dw` threads (dimension workers of OSDI 2021) cover a neighbour's features, each with `vectors` loads of
    `vector_width` elements; `groups` neighbour groups share a row (the paper's group size ngs is then degree / groups);
    rows above `long_row` edges are cut into items of `item_edges`. On a CPU only the kernel applies; the rest is None.
    """

    kernel: str
    reason: str
    dw: int | None = None
    groups: int | None = None
    vector_width: int | None = None
    vectors: int | None = None
    warps_per_block: int | None = None
    long_row: int | None = None
    item_edges: int | None = None

    def as_dict(self) -> dict:
        """The parameters that apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@lru_cache(maxsize=8)
def device_facts(device: torch.device) -> tuple[bool, int, int]:
    """(is CUDA, multiprocessors or threads, bytes of L2) of a device."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return True, properties.multi_processor_count, properties.L2_cache_size
    return False, torch.get_num_threads(), 0


def decide(
    rows: int,
    cols: int,
    edges: int,
    max_degree: int,
    width: int,
    *,
    head_dim: int | None = None,
    itemsize: int = 4,
    weighted: bool = False,
    aligned: bool = True,
    reduce: str = "sum",
    device: torch.device | None = None,
) -> Config:
    """The configuration for one aggregation of `width` elements per node over a graph of `rows` x `cols` with `edges`.

    head_dim: elements that share one edge weight (default: all). itemsize: bytes per element. device: default CPU.
    """
    cuda, processors, l2_bytes = device_facts(device or torch.device("cpu"))
    numbers, reason = torch.ops.gnna.decide(
        rows, cols, edges, max_degree, width, head_dim or max(width, 1), itemsize, weighted, aligned, reduce, cuda,
        processors, l2_bytes,
    )  # fmt: skip
    if not cuda:
        return Config(f"rows-{torch.ops.gnna.instruction_set()}", reason)
    lanes, groups, vector_width, vectors, block, long_row, item_edges = numbers
    return Config("rows", reason, lanes, groups, vector_width, vectors, block // 32, long_row, item_edges)
