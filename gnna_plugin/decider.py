"""The decider as Python sees it: facts in, a launch configuration and its reason out.

The rules are the pure function of csrc/decide/launch.cpp that the kernels' launches use themselves. Nothing is stored,
so layers cannot influence each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from functools import lru_cache
from numbers import Integral
from typing import Any

import torch

from gnna_plugin.extractor import THREADS_PER_WARP

REDUCES = ("sum", "mean", "max", "min")  # as numbered in csrc/include/gnna/types.h
KERNELS = ("row", "group")  # as numbered in csrc/include/gnna/decide.h
SOURCES = ("rules", "tuned", "by hand")  # as numbered there


@dataclass(frozen=True)
class Facts:
    """All that a launch is decided from, but for the device: a graph, and one aggregation over it.

    rows, cols: destination and source nodes. max_degree: edges of the longest row. width: elements per node. head_dim:
    elements that share one edge weight. itemsize: bytes per element. aligned: x and its rows start on 16 bytes.
    """

    rows: int
    cols: int
    edges: int
    max_degree: int
    width: int
    head_dim: int
    itemsize: int = 4
    weighted: bool = False
    reduce: str = "sum"
    aligned: bool = True

    def numbers(self) -> list[int]:
        """As torch.ops.gnna takes them: the fields of GraphFacts and LayerFacts in csrc/include/gnna/decide.h."""
        *counts, weighted, reduce, aligned = astuple(self)
        return [*counts, int(weighted), REDUCES.index(reduce), int(aligned)]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Facts:
        """The inverse of numbers()."""
        values = dict(zip((field.name for field in fields(cls)), numbers, strict=True))
        return cls(
            **{
                **values,
                "weighted": bool(values["weighted"]),
                "reduce": REDUCES[values["reduce"]],
                "aligned": bool(values["aligned"]),
            }  # type: ignore[arg-type]
        )


@dataclass(frozen=True)
class Config:
    """How one aggregation is launched.

    `lanes` threads (the paper's dimension workers, dw) cover a neighbour's features, each with `vectors` loads of
    `vector_width` elements. Kernel "row": `groups` neighbour groups share a row's edges, so that the paper's group size
    is degree / groups. Kernel "group", the paper's: a row's edges are cut into neighbour groups of `group_size`.
    `block` is threads per block. In both kernels, rows with more than `split_above` edges are split into chunks of
    `chunk_edges`. On a CPU only the kernel applies, and the rest is None. `source` is "rules", "tuned" or "by hand";
    `runner_up` is the other kernel's launch.
    """

    kernel: str
    reason: str
    source: str = "rules"
    runner_up: str | None = None
    lanes: int | None = None
    groups: int | None = None
    group_size: int | None = None
    vector_width: int | None = None
    vectors: int | None = None
    block: int | None = None
    split_above: int | None = None
    chunk_edges: int | None = None

    def as_dict(self) -> dict:
        """The parameters that apply, and the words."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def parameters(self) -> dict:
        """Return the parameters that apply, as `overrides_of` takes them; {} on a CPU, which has none."""
        if self.lanes is None:
            return {}
        return {name: value for name, value in self.as_dict().items() if name not in _WORDS}


_WORDS = ("reason", "source", "runner_up")
_POWERS = (1, 2, 4, 8, 16, 32)
# The values that each parameter may be given, and the order in which torch.ops.gnna takes them.
PARAMETERS: dict[str, Sequence[int]] = {
    "lanes": _POWERS,
    "groups": _POWERS,
    "group_size": range(1, 1 << 20),
    "vector_width": (1, 2, 4, 8),
    "vectors": (1, 2, 4),
    "block": tuple(THREADS_PER_WARP * warps for warps in (1, 2, 4, 8, 16)),
    "split_above": range(1, 1 << 31),
    "chunk_edges": range(1, 1 << 31),
}
# The paper's names and those of earlier releases, which are accepted for the parameters. One warps_per_block is 32
# threads of `block`.
_OLD_NAMES = {"dw": "lanes", "ngs": "group_size", "warps_per_block": "block", "long_row": "split_above",
              "item_edges": "chunk_edges"}  # fmt: skip
_OLD_KERNELS = {"rows": "row", "groups": "group"}


def overrides_of(config: Mapping[str, int | str] | Config | None) -> tuple[int, ...]:
    """Return `config`, a Config or some of its parameters by name, as torch.ops.gnna takes it.

    A parameter that is missing is left to the rules. "group_size" alone implies kernel "group", because the row kernel
    has no such parameter. A vector_width other than 1 means loads of 16 bytes, which the rules choose anyway if the
    layer allows it. The paper's names dw, ngs and warps_per_block are accepted, too.

    Raises:
        ValueError: an unknown parameter, a value out of range, one parameter under two names, or "groups" and
            "group_size" with the other kernel.
    """
    given: dict[str, Any] = dict(config.parameters() if isinstance(config, Config) else config or {})
    for word in _WORDS:
        given.pop(word, None)
    kernel = given.pop("kernel", None)
    kernel = _OLD_KERNELS.get(kernel, kernel) if isinstance(kernel, str) else kernel
    if kernel is None and ("group_size" in given or "ngs" in given):
        kernel = "group"
    if kernel is not None and kernel not in KERNELS:
        raise ValueError(f"config sets kernel to {kernel!r}; accepted are {', '.join(map(repr, KERNELS))}")
    values: dict[str, int] = {}
    for name, value in given.items():
        parameter = _OLD_NAMES.get(name, name)
        if parameter not in PARAMETERS:
            raise ValueError(f"config sets {name!r}; accepted are kernel, {', '.join(PARAMETERS)}")
        if parameter in values:
            raise ValueError(f"config sets {parameter} twice, once as {name!r}; give one of the two")
        unit = THREADS_PER_WARP if name == "warps_per_block" else 1
        accepted = PARAMETERS[parameter]
        if isinstance(value, bool) or not isinstance(value, Integral) or value * unit not in accepted:
            first, last = accepted[0] // unit, accepted[-1] // unit
            listed = ", ".join(str(a // unit) for a in accepted if a >= unit) if isinstance(accepted, tuple) else None
            raise ValueError(f"config sets {name} to {value!r}; accepted are {listed or f'{first} to {last}'}")
        values[parameter] = int(value) * unit
    for parameter, owner in (("group_size", "group"), ("groups", "row")):
        if parameter in values and kernel not in (owner, None):
            raise ValueError(
                f"config sets {parameter}, a parameter of kernel {owner!r}, with kernel {kernel!r} or its parameters; "
                "set those of one kernel"
            )
    return (-1 if kernel is None else KERNELS.index(kernel), *(values.get(name, 0) for name in PARAMETERS))


def parse_config(text: str) -> dict[str, int | str]:
    """Return what a command line says, such as "lanes=16,block=128", as overrides_of takes it; raises as that does."""
    config: dict[str, int | str] = {}
    for item in text.split(","):
        name, _, value = (word.strip() for word in item.partition("="))
        try:
            config[name] = value if name == "kernel" else int(value)
        except ValueError:
            raise ValueError(f"{item.strip()!r} is not of the form name=number (or kernel=name)") from None
    overrides_of(config)
    return config


@lru_cache(maxsize=8)
def device_facts(device: torch.device) -> tuple[int, ...]:
    """Return (is CUDA, multiprocessors or threads, bytes of L2).

    On a CPU the L2 cache is that of one core.
    """
    return tuple(torch.ops.gnna.device_facts(device))


def decide(
    facts: Facts, device: torch.device | None = None, config: Mapping[str, int | str] | Config | None = None
) -> Config:
    """Return the launch configuration for one aggregation on `device` (default: the CPU).

    config: parameters that are not left to the rules, as in `overrides_of`, which says what it raises.
    """
    return decide_on(device_facts(device or torch.device("cpu")), facts, config)


def decide_on(
    device: Sequence[int], facts: Facts, config: Mapping[str, int | str] | Config | None = None
) -> Config:
    """As decide, for a device given by its `device_facts`, which this machine need not have."""
    return _config_of(torch.ops.gnna.decide(facts.numbers(), device, overrides_of(config)))


def decide_in_force(facts: Facts, device: torch.device | None = None) -> Config:
    """Return the configuration that a launch would get now: by hand, else tuned for these facts, else by the rules."""
    return _config_of(torch.ops.gnna.decide(facts.numbers(), device_facts(device or torch.device("cpu")), None))


def last_decision() -> tuple[Facts, Config] | None:
    """Return what this thread's last launch of `spmm` was decided from and to be, as the op recorded it."""
    numbers = torch.ops.gnna.last_decision()
    return (Facts.of(numbers[: len(fields(Facts))]), _config_of(numbers)) if numbers else None


def _config_of(decision: list[int]) -> Config:
    """decision: Decision::to_vector() of csrc/include/gnna/decide.h."""
    *_, source, kernel_number = decision[: -len(PARAMETERS)]
    values: dict[str, int | None] = dict(zip(PARAMETERS, decision[-len(PARAMETERS) :], strict=True))
    reason = torch.ops.gnna.reason(decision)
    on_cuda = decision[len(fields(Facts))]
    if not on_cuda:
        return Config(f"row-{torch.ops.gnna.instruction_set()}", reason, SOURCES[source])
    kernel = KERNELS[kernel_number]
    values["group_size" if kernel == "row" else "groups"] = None
    return Config(kernel, reason, SOURCES[source], torch.ops.gnna.runner_up(decision), **values)


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
    cuda, processors, l2_bytes = device_facts(device or torch.device("cpu"))
    return ScheduleChoice(
        *torch.ops.gnna.choose_schedule(
            rows, cols, edges, max_degree, bool(cuda), processors, l2_bytes, row_bytes, calls, seconds
        )
    )
