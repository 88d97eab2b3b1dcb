"""Freed CPU memory, kept for the next buffers of its size while the plug-in is on.

By default glibc returns a large buffer to the kernel when it is freed, and the next one of the same size costs a page
fault per 4 KiB. Kept memory and memory in use together stay below the peak of what was in use, within 1/128. Buffers
may be freed before, under and after a change of the setting. No result changes. The pool:
csrc/torch/process/kept_memory.cpp.

Two parameters of glibc's malloc are set meanwhile: buffers from 1 MiB on are mapped on their own, so that the pool can
keep them, and the heap is trimmed from 64 MiB on. Afterwards they are where glibc's own adjustment ends.
"""

from __future__ import annotations

import torch

_kept = False
_opened = False  # kept memory has to be returned, even if somebody else's allocator is in place by then


def keep_freed_memory() -> bool:
    """Keep freed buffers for the next allocations.

    Returns:
        True if it took effect: on Linux with glibc, unless another allocator has replaced torch's own for the CPU.
    """
    global _kept, _opened
    _kept = torch.ops.gnna.keep_freed_memory()
    _opened = _opened or _kept
    return _kept


def restore() -> None:
    """Put torch's own allocator back and return the kept memory to the kernel. Does nothing unless memory was kept."""
    global _kept, _opened
    if _opened:
        torch.ops.gnna.return_freed_memory()
        _kept = _opened = False


def kept() -> bool:
    """Return whether freed memory is kept at present."""
    return _kept


def kept_bytes() -> int:
    """Return the size of the free buffers that are kept at present, in bytes."""
    return torch.ops.gnna.kept_bytes()
