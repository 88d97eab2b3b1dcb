"""Meters for a worker process: peak memory, load by other processes, spread, and whether a framework was restored.

worker.py decides what runs between two readings.
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
    """Measures the peak memory above the memory in use at construction.

    This is torch's device memory on CUDA, and the resident memory of the process on a CPU.
    """

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
            # Resets the high-water mark, which may come from loading the graph or even from the parent process at fork.
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass
        self.base = _resident("VmRSS")

    def mib(self):
        """Return the peak so far in MiB, at least 0.0."""
        peak = torch.cuda.max_memory_allocated() if self.device == "cuda" else _resident("VmHWM")
        return max(0.0, (peak - self.base) / 2**20)


def _resident(key):
    """Return a field of /proc/self/status in bytes.

    Without such a file, the result is the high-water mark of the process.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _return_freed_memory():
    """Return freed memory to the kernel (glibc only).

    Otherwise the measurement of a case would start with memory that the case before left behind.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass


class OtherWork:
    """Measures how much of the machine other processes use.

    A busy machine slows all epochs by about the same factor, which the spread of the times does not show.
    """

    def __init__(self):
        self.begin = time.perf_counter(), _busy_seconds(), time.process_time()

    def missing_cores(self, threads):
        """Return how many cores other processes took from this one, on average.

        This process needs ``threads`` cores. The result is at least 0.0. It is None if it is not known: there is no
        /proc/stat, or the meter is less than 0.2 s old, which is too short for the unit of /proc/stat, 10 ms.
        """
        begin, busy, own = self.begin
        now, wall = _busy_seconds(), time.perf_counter() - begin
        if busy is None or now is None or wall < 0.2:
            return None
        others = (now - busy - (time.process_time() - own)) / wall
        return max(0.0, others - (len(os.sched_getaffinity(0)) - threads))


def _busy_seconds():
    """Return the busy seconds since boot of the cores that this process may use.

    None if they are not known. They are summed over the cores and over all processes.
    """
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
    """Return the bytes that can still be allocated, or None if not known."""
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
    """Return (median, interquartile range) of a non-empty list of numbers.

    The range of a single value is 0.0.
    """
    if len(values) < 2:
        return float(values[0]), 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return statistics.median(values), high - low


def snapshot(packages):
    """Return all functions, classes and methods of ``packages``.

    Only loaded modules are searched. The result is {(module or class, name): object}.
    """
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
    """Return the names that differ between two snapshots.

    These are names that were replaced, removed, or added by the plug-in.
    """
    changed = [key for key, value in before.items() if after.get(key) is not value]
    left = [key for key, value in after.items() if _owner(value) == "gnna_plugin" and key not in before]
    return sorted(f"{place}.{name}" for place, name in changed + left)


def _owner(value):
    return str(getattr(value, "__module__", None) or "").split(".")[0]
