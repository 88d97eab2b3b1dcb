"""Keeps freed CPU buffers for later allocations of about the same size while the plug-in is enabled.

By default glibc returns a large buffer to the kernel when it is freed, and the next buffer of that size costs a page
fault per 4 KiB. Kept memory and memory in use together exceed the peak of the memory in use by at most 1/128. A buffer
may be allocated under one setting and freed under the other. Results do not change. The pool is
csrc/torch/process/kept_memory.cpp.

While memory is kept, two parameters of glibc's malloc are fixed. Buffers of 1 MiB or more are mapped on their own, so
that the pool can keep them. The heap is trimmed when 64 MiB at its end are free. Afterwards both parameters have the
values at which glibc's own adjustment ends.
"""

from __future__ import annotations

import torch

_kept = False
_opened = False  # True until restore(): kept memory must be returned even if another allocator was installed since


def keep_freed_memory() -> bool:
    """Keep freed buffers for later allocations.

    Returns:
        Whether it took effect. That needs Linux with glibc, and torch's own CPU allocator in place.
    """
    global _kept, _opened
    _kept = torch.ops.gnna.keep_freed_memory()
    _opened = _opened or _kept
    return _kept


def restore() -> None:
    """Restore torch's allocator and return the kept memory to the kernel.

    Does nothing unless keep_freed_memory() took effect before.
    """
    global _kept, _opened
    if _opened:
        torch.ops.gnna.return_freed_memory()
        _kept = _opened = False


def kept() -> bool:
    """Return whether freed memory is being kept."""
    return _kept


def kept_bytes() -> int:
    """Return the size in bytes of the free buffers that are kept."""
    return torch.ops.gnna.kept_bytes()
