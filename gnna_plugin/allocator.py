"""Freed CPU memory, kept in the process while the plug-in is on: giving it back is the largest cost of a CPU epoch.

By default glibc returns every large buffer to the kernel when it is freed, and the next one of the same size costs a
page fault per 4 KiB. On com-dblp that is half of a PyG epoch (GCN 745 ms against 392 ms, 2 cores, torch 2.13). The
price of keeping it is resident memory that stays at its high-water mark. No result changes. How it is done:
csrc/torch/kept_memory.cpp.
"""

from __future__ import annotations

import torch

_kept = False


def keep_freed_memory() -> bool:
    """Keeps freed buffers for the next ones and offers large ones to transparent huge pages.

    Returns True where it took effect: on Linux with glibc.
    """
    global _kept
    _kept = torch.ops.gnna.keep_freed_memory()
    return _kept


def restore() -> None:
    """Puts torch's own allocator and glibc's initial settings back, and returns what is free to the kernel.

    Does nothing unless memory was kept. One thing cannot be restored: glibc raises its mmap threshold by itself until
    it is first told one.
    """
    global _kept
    if _kept:
        torch.ops.gnna.return_freed_memory()
        _kept = False


def kept() -> bool:
    """Whether freed memory is kept at present."""
    return _kept
