"""The decider as Python sees it: one value for a configuration, from the pure function in csrc/decide/launch.cpp that
the kernels' launches use themselves. Facts in, configuration and reason out; nothing is stored, so layers cannot
influence each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch

from gnna_plugin.extractor import THREADS_PER_WARP


@dataclass(frozen=True)
class Config:
    """How one aggregation is launched.

    `dw` threads (dimension workers of OSDI 2021) cover a neighbour's features, each with `vectors` loads of
    `vector_width` elements. Kernel "rows": `groups` neighbour groups share a row's edges (the paper's group size is
    then degree / groups). Kernel "groups", the paper's: a row's edges are cut into neighbour groups of `ngs`. In both,
    rows above `long_row` edges are cut into items of `item_edges`. On a CPU only the kernel applies; the rest is None.
    `runner_up` says what the other kernel would have been launched with.
    """

    kernel: str
    reason: str
    runner_up: str | None = None
    dw: int | None = None
    groups: int | None = None
    ngs: int | None = None
    vector_width: int | None = None
    vectors: int | None = None
    warps_per_block: int | None = None
    long_row: int | None = None
    item_edges: int | None = None

    def as_dict(self) -> dict:
        """The parameters that apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}


KERNELS = ("rows", "groups")  # as numbered in csrc/include/gnna/decide.h
_POWERS = (1, 2, 4, 8, 16, 32)
# What each parameter may be when it is set by hand, and the order in which torch.ops.gnna takes them.
PARAMETERS: dict[str, Sequence[int]] = {
    "dw": _POWERS,
    "groups": _POWERS,
    "ngs": range(1, 1 << 20),
    "vector_width": (1, 2, 4, 8),
    "vectors": (1, 2, 4),
    "warps_per_block": (1, 2, 4, 8, 16),
    "long_row": range(1, 1 << 31),
    "item_edges": range(1, 1 << 31),
}
_OPEN = (-1, *(0 for _ in PARAMETERS))


def fixed_by_hand(config: Mapping[str, int | str] | Config | None) -> tuple[int, ...]:
    """config, parameters of `Config` by name or a Config, as torch.ops.gnna takes it; what is missing is left open.

    "ngs" alone asks for kernel "groups", as it has no meaning in the other. A vector_width other than 1 means 16 bytes
    a load, which is the rule anyway where the layer allows it.

    Raises ValueError for an unknown parameter, a value out of range, or "groups" and "ngs" with the wrong kernel.
    """
    if config is None:
        return _OPEN
    given: dict[str, Any] = config.as_dict() if isinstance(config, Config) else dict(config)
    for comment in ("reason", "runner_up"):
        given.pop(comment, None)
    kernel = given.pop("kernel", None)
    if kernel is None and "ngs" in given:
        kernel = "groups"
    if kernel is not None and kernel not in KERNELS:
        raise ValueError(f"config sets kernel to {kernel!r}; accepted are {', '.join(map(repr, KERNELS))}")
    for name, value in given.items():
        if name not in PARAMETERS:
            raise ValueError(f"config sets {name!r}; accepted are kernel, {', '.join(PARAMETERS)}")
        accepted = PARAMETERS[name]
        if isinstance(value, bool) or value not in accepted:
            words = f"{accepted[0]} to {accepted[-1]}" if isinstance(accepted, range) else ", ".join(map(str, accepted))
            raise ValueError(f"config sets {name} to {value!r}; accepted are {words}")
    for name, owner in (("ngs", "groups"), ("groups", "rows")):
        if name in given and kernel not in (owner, None):
            raise ValueError(f"config sets {name} with kernel {kernel!r}; it is a parameter of kernel {owner!r}")
    given["warps_per_block"] = given.get("warps_per_block", 0) * THREADS_PER_WARP
    return (-1 if kernel is None else KERNELS.index(kernel), *(given.get(name, 0) for name in PARAMETERS))


def parse_config(text: str) -> dict[str, int | str]:
    """What a command line says, "ngs=32,dw=16", as fixed_by_hand takes it; raises ValueError as that does."""
    config: dict[str, int | str] = {}
    for item in text.split(","):
        name, _, value = (word.strip() for word in item.partition("="))
        try:
            config[name] = value if name == "kernel" else int(value)
        except ValueError:
            raise ValueError(f"{item.strip()!r} is not of the form name=number (or kernel=name)") from None
    fixed_by_hand(config)
    return config


@lru_cache(maxsize=8)
def device_facts(device: torch.device) -> tuple[bool, int, int, int]:
    """(is CUDA, multiprocessors or threads, bytes of L2, on a CPU of one core, memory's bytes a second or 0 where that
    is not known) of a device."""
    bandwidth = torch.ops.gnna.memory_bandwidth(device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return True, properties.multi_processor_count, properties.L2_cache_size, bandwidth
    return False, torch.get_num_threads(), torch.ops.gnna.l2_bytes(device), bandwidth


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
    config: Mapping[str, int | str] | Config | None = None,
) -> Config:
    """The configuration for one aggregation of `width` elements per node over a graph of `rows` x `cols` with `edges`.

    head_dim: elements that share one edge weight (default: all). itemsize: bytes per element. device: default CPU.
    config: what is fixed by hand, as in `fixed_by_hand`, which says what it raises.
    """
    cuda, *device_numbers = device_facts(device or torch.device("cpu"))
    numbers, reason, runner_up = torch.ops.gnna.decide(
        rows, cols, edges, max_degree, width, head_dim or max(width, 1), itemsize, weighted, aligned, reduce, cuda,
        *device_numbers, fixed_by_hand(config),
    )  # fmt: skip
    if not cuda:
        return Config(f"rows-{torch.ops.gnna.instruction_set()}", reason)
    kernel = KERNELS[numbers[0]]
    values = dict(zip(PARAMETERS, numbers[1:], strict=True))
    values["warps_per_block"] //= THREADS_PER_WARP
    values["ngs" if kernel == "rows" else "groups"] = None
    return Config(kernel, reason, runner_up, **values)


@dataclass(frozen=True)
class ScheduleChoice:
    """What a plan's schedule would be after some calls: kind "ascending", "degree" or "community", the gain expected of
    it (time before / time after), its cost in seconds, whether the calls so far would have repaid it, and why."""

    kind: str
    gain: float
    cost: float
    repays: bool
    reason: str


def choose_schedule(
    rows: int,
    cols: int,
    edges: int,
    row_bytes: int,
    *,
    max_degree: int = 0,
    calls: int = 0,
    seconds: float = 0.0,
    device: torch.device | None = None,
) -> ScheduleChoice:
    """The schedule's decision, by the pure function of csrc/decide/schedule.cpp that the plans use themselves, for
    features of row_bytes and `calls` that took `seconds` together. device: default CPU."""
    facts = device_facts(device or torch.device("cpu"))[:3]
    return ScheduleChoice(
        *torch.ops.gnna.choose_schedule(rows, cols, edges, max_degree, *facts, row_bytes, calls, seconds)
    )
