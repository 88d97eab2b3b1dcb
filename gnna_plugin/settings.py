"""The settings in force, the frameworks that are enabled, and whether the plug-in acts on this thread right now.

Plain attributes, because the adapters read them on every call. Only switch.py writes them.
"""

from __future__ import annotations

import numbers
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch


class Fallback(RuntimeError):
    """Raised in strict mode (`enable(strict=True)`) if a call would fall back to the framework."""


# Elements (edges times feature width) below which the framework's own path is used: where the two took the same time
# for a training step of one layer (CPU: 2 cores with AVX-512, torch 2.13, PyG 2.8.1; CUDA: an H200, eager, torch 2.11,
# PyG 2.8.0, where smaller graphs wait for the host; `gnna tune` measures it anew).
DEFAULT_MIN_WORK = {"cpu": 32_768, "cuda": 1_600_000}

# Feature dtypes with kernels, by device kind.
_FLOATS = frozenset((torch.float32, torch.float64, torch.float16, torch.bfloat16))
DTYPES = {"cpu": _FLOATS, "cuda": _FLOATS}


@dataclass(frozen=True)
class Settings:
    """The keywords of enable()."""

    only: frozenset[str] | None = None
    skip: frozenset[str] = frozenset()
    strict: bool = False
    verify: bool = False
    min_work: int | None = None  # None: DEFAULT_MIN_WORK of the device kind
    max_plan_bytes: int = 4 << 30
    keep_memory: bool = True
    config: tuple[tuple[str, int | str], ...] = ()  # launch parameters fixed by hand: names and values
    schedule: bool = True
    rewrite: bool = True
    tuned_min_work: Mapping[str, int] = field(default_factory=dict)  # by device kind, from `gnna tune`

    def least_work(self, device_type: str) -> int:
        if self.min_work is not None:
            return self.min_work
        return self.tuned_min_work.get(device_type, DEFAULT_MIN_WORK.get(device_type, 0))

    def chooses(self, layer: str) -> bool:
        return layer not in self.skip and (self.only is None or layer in self.only)


current = Settings()
enabled_frameworks: list[str] = []  # the names of those whose hooks are in place


class _Thread(threading.local):
    def __init__(self) -> None:  # runs in every thread that uses it
        self.active = True  # not a class attribute, because compiled code watches the instance's only


_thread = _Thread()


def active() -> bool:
    """Whether the hooks act on this thread: False inside `with disabled():`."""
    return _thread.active


def set_active(value: bool) -> bool:
    """Sets it for this thread and returns what it was."""
    before = active()
    _thread.active = value
    return before


def kept_off() -> bool:
    """Return whether enable() has no effect in this process, which `gnna compare` asks for in its plain runs."""
    return os.environ.get("GNNA_KEEP_OFF") == "1"


def layers_from_environment(name: str) -> list[str] | None:
    """Return the layer class names that GNNA_ONLY or GNNA_SKIP lists, separated by commas; None if it is not set."""
    text = os.environ.get(name)
    return None if text is None else [layer for part in text.split(",") if (layer := part.strip())]


def switch_from_environment(name: str, value: bool | None) -> bool:
    """Return a switch such as `strict`, from GNNA_STRICT if the caller left it open."""
    if value is None:
        text = os.environ.get(f"GNNA_{name.upper()}", "0")
        if text not in ("", "0", "1"):
            raise ValueError(f"GNNA_{name.upper()} is {text!r}; it must be 0 or 1")
        return text == "1"
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be True or False")
    return value


def min_work_from_environment(min_work: int | None) -> int | None:
    """Return min_work, from GNNA_MIN_WORK if the caller left it open."""
    name, given = "min_work", repr(min_work)
    if min_work is None and (text := os.environ.get("GNNA_MIN_WORK")):
        name, given = "GNNA_MIN_WORK", repr(text)
        min_work = int(text) if text.strip().isdecimal() else -1
    if min_work is not None and not is_count(min_work):
        raise ValueError(f"{name} is {given}; it must be a whole number of elements (edges x width), 0 to 2**63 - 1")
    return min_work


def is_count(value: object) -> bool:
    """Return whether a setting is a whole number that the ops' 64-bit integers can hold. True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and 0 <= int(value) < 1 << 63
