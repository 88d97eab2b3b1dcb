"""Searches for a launch configuration: starts at the decider's choice and changes one parameter at a time.

Times come from the caller, so the search can be tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gnna_plugin.decider import KERNELS, PARAMETERS

# Values to try of parameters whose accepted values are a range.
_TRIED = {
    "group_size": (8, 16, 32, 64, 128),
    "split_above": (32, 64, 128, 256, 512, 1024),
    "chunk_edges": (256, 512, 1024, 2048),
}
_GAIN = 0.98  # a candidate must save 2 %, because repeated timings scatter by about that much
_SWEEPS = 2


@dataclass
class Found:
    """The result of a search.

    Attributes:
        config, ms: the best configuration and its time.
        decider_ms: the time of the decider's choice.
        tried: (configuration, ms) of every candidate; ms is None if it cannot be launched.
    """

    config: dict
    ms: float
    decider_ms: float
    tried: list[tuple[dict, float | None]] = field(default_factory=list)


def search(decided: Callable[[dict], dict], time_of: Callable[[dict], float | None]) -> Found:
    """Find the configuration with the smallest time.

    Args:
        decided: completes a partial configuration by the decider's rules. Equal completions are timed once.
        time_of: returns the time of a configuration in ms, or None if it cannot be launched.

    Raises:
        ValueError: the decider's own choice cannot be launched.
    """
    times: dict[tuple, float | None] = {}
    tried = []

    def measured(partial: dict) -> tuple[dict, float | None]:
        try:
            whole = decided(partial)
        except ValueError:
            return partial, None
        key = tuple(sorted(whole.items()))
        if key not in times:
            times[key] = time_of(whole)
            tried.append((whole, times[key]))
        return whole, times[key]

    first, first_ms = measured({})
    if first_ms is None:
        raise ValueError(f"the decider's own choice cannot be launched: {first}")
    best, best_ms = first, first_ms
    for kernel in (first["kernel"], *(name for name in KERNELS if name != first["kernel"])):
        start, start_ms = measured({"kernel": kernel})
        if start_ms is None:
            continue
        found, found_ms = _descend(start, start_ms, measured)
        if found_ms < best_ms * _GAIN:
            best, best_ms = found, found_ms
    return Found(best, best_ms, first_ms, tried)


def _descend(start: dict, start_ms: float, measured: Callable) -> tuple[dict, float]:
    best, best_ms = start, start_ms
    for _ in range(_SWEEPS):
        before = best_ms
        for name, accepted in PARAMETERS.items():
            if name not in best:
                continue
            for value in _TRIED.get(name, accepted):
                if value == best[name]:
                    continue
                found, ms = measured({**best, name: value})
                if ms is not None and ms < best_ms * _GAIN:
                    best, best_ms = found, ms
        if best_ms >= before:
            break
    return best, best_ms
