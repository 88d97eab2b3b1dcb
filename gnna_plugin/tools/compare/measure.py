"""How things are measured inside a worker process: peak memory, a spread, and whether a framework was put back.

This file owns the meters; what runs between two readings is the worker's.
"""

import ctypes
import gc
import os
import resource
import statistics
import sys
import time
import types
from pathlib import Path

import torch


class PeakMemory:
    """Peak memory in MiB above what was held when the meter was made: device memory on CUDA, resident memory on CPU."""

    def __init__(self, device):
        self.device = device
        gc.collect()
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.base = torch.cuda.memory_allocated()
            return
        _return_freed_memory()
        try:
            # Without this the high-water mark is that of loading the graph, or even of the parent process at fork.
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass
        self.base = _resident("VmRSS")

    def mib(self):
        """The peak so far, in MiB, 0.0 or more."""
        peak = torch.cuda.max_memory_allocated() if self.device == "cuda" else _resident("VmHWM")
        return max(0.0, (peak - self.base) / 2**20)


def _resident(key):
    """A field of /proc/self/status in bytes; where there is no such file, the process's high-water mark."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _return_freed_memory():
    """Hand freed memory back to the kernel, so that one case's leftovers are not the next one's start (glibc only)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass


class OtherWork:
    """How much of the machine other processes use: a busy machine slows every epoch alike, which no spread shows."""

    def __init__(self):
        self.begin = time.perf_counter(), _busy_seconds(), time.process_time()

    def missing_cores(self, threads):
        """How many of the ``threads`` cores that this process wants were taken by others on average, 0.0 or more.

        None where it is not known: no /proc/stat (its unit is 10 ms), or less than 0.2 s since the meter was made.
        """
        begin, busy, own = self.begin
        now, wall = _busy_seconds(), time.perf_counter() - begin
        if busy is None or now is None or wall < 0.2:
            return None
        others = (now - busy - (time.process_time() - own)) / wall
        return max(0.0, others - (len(os.sched_getaffinity(0)) - threads))


def _busy_seconds():
    """Busy time since boot of the cores this process may use, in seconds over all processes; None if unknown."""
    try:
        wanted = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    except (OSError, AttributeError):
        return None
    ticks = 0
    for line in lines:
        if line and line[0] in wanted:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line[1:9])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def available_bytes(device):
    """Memory that can still be taken, in bytes; None where it is not known."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def median_and_spread(values):
    """(median, interquartile range) of a non-empty list of numbers; the range of a single value is 0.0."""
    if len(values) < 2:
        return float(values[0]), 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return statistics.median(values), high - low


def snapshot(packages):
    """Every function, class and method of the loaded modules of ``packages``: {(place, name): object}."""
    found = {}
    for module_name, module in list(sys.modules.items()):
        if module is None or module_name.split(".")[0] not in packages:
            continue
        for name, value in list(vars(module).items()):
            if callable(value):
                found[module_name, name] = value
            if isinstance(value, type) and value.__module__.split(".")[0] in packages:
                place = f"{value.__module__}.{value.__qualname__}"
                found.update(((place, key), item) for key, item in list(vars(value).items()) if _is_method(item))
    return found


def _is_method(item):
    return callable(item) or isinstance(item, (staticmethod, classmethod, property, types.GetSetDescriptorType))


def differences(before, after):
    """The names that do not hold the object they held: replaced, gone, or left behind by the plug-in."""
    changed = [key for key, value in before.items() if after.get(key) is not value]
    left = [key for key, value in after.items() if _owner(value) == "gnna_plugin" and key not in before]
    return sorted(f"{place}.{name}" for place, name in changed + left)


def _owner(value):
    return str(getattr(value, "__module__", None) or "").split(".")[0]
