"""Kept CPU memory: buffers may be freed at any time and in any way, and the kept memory stays within its bound."""

from __future__ import annotations

import platform
import subprocess
import sys
import threading

import pytest
import raw_memory
import torch

from gnna_plugin import allocator

if platform.libc_ver()[0] != "glibc" or platform.machine() != "x86_64":
    pytest.skip("memory is kept under glibc only, and raw_memory supports one ABI", allow_module_level=True)

SIZES = (0, 1, 64, 4096, 1 << 16, 1 << 17, 1 << 20, 8 << 20, 40 << 20)
LARGE = 48 << 20  # bytes, above glibc's largest mmap threshold


@pytest.fixture(autouse=True)
def torch_allocator():
    allocator.restore()
    yield raw_memory.current_allocator()
    allocator.restore()


def buffer(size=LARGE):
    return torch.ones(size // 4)


@pytest.mark.parametrize("by", ["torch", "ours", "free"])
@pytest.mark.parametrize("given_back", ["plain", "kept"])
@pytest.mark.parametrize("taken", ["plain", "kept"])
def test_a_block_may_be_freed_in_any_state_and_by_any_deleter(taken, given_back, by, torch_allocator):
    def switch(state):
        return allocator.keep_freed_memory() if state == "kept" else allocator.restore()

    allocator.keep_freed_memory()
    ours = raw_memory.current_allocator()
    assert ours != torch_allocator
    for _ in range(2):
        switch(taken)
        blocks = [raw_memory.raw_allocate(raw_memory.current_allocator(), size) for size in SIZES for _ in range(3)]
        assert not any((block or 0) % 64 for block in blocks)
        switch(given_back)
        for block in blocks:
            if by == "free":
                raw_memory.free(block)
            else:
                raw_memory.raw_deallocate(ours if by == "ours" else torch_allocator, block)
        kept = [buffer(size) for size in SIZES]
        assert all(bool((tensor == 1).all()) for tensor in kept)


def test_tensors_survive_switching_the_allocator():
    before = torch.arange(LARGE // 4)
    allocator.keep_freed_memory()
    under = torch.arange(LARGE // 4)
    del before
    allocator.restore()
    under.resize_(LARGE // 2)  # calls the allocator that made the tensor, which is no longer installed
    assert torch.equal(under[: LARGE // 4], torch.arange(LARGE // 4))
    allocator.keep_freed_memory()
    del under
    assert allocator.kept_bytes() == 0  # was not allocated by the current pool, so it is freed as torch does


def test_a_freed_buffer_is_reused_for_its_size_and_returned_on_restore():
    allocator.keep_freed_memory()
    tensor = buffer()
    address = tensor.data_ptr()
    del tensor
    assert LARGE <= allocator.kept_bytes() <= LARGE + 8192
    tensor = buffer(LARGE - 4096)
    assert tensor.data_ptr() == address and allocator.kept_bytes() == 0
    del tensor
    allocator.restore()
    assert allocator.kept_bytes() == 0


def test_kept_and_used_memory_together_stay_below_the_peak_of_used_memory():
    """No kept block is large enough for ascending sizes, so each new buffer must make room for itself."""
    allocator.keep_freed_memory()
    peak = 0
    for number in range(1, 12):
        sizes = number * (40 << 20), number * (12 << 20)
        tensors = [torch.empty(size, dtype=torch.uint8) for size in sizes]
        peak = max(peak, sum(sizes))
        assert allocator.kept_bytes() + sum(sizes) <= peak + 2 * 8192
        del tensors
        assert allocator.kept_bytes() <= peak + 2 * 8192


def test_kept_memory_that_is_not_reused_is_returned():
    allocator.keep_freed_memory()
    tensor = torch.empty(LARGE // 4)
    del tensor
    for _ in range(1200):
        torch.empty(1 << 21, dtype=torch.uint8)  # large enough to be kept
    assert allocator.kept_bytes() < LARGE


def test_the_count_is_right_again_after_memory_was_freed_without_the_pool():
    allocator.keep_freed_memory()
    for _ in range(5):
        raw_memory.free(raw_memory.raw_allocate(raw_memory.current_allocator(), LARGE))
    assert allocator.kept_bytes() == 0
    tensor = buffer()
    del tensor
    assert LARGE <= allocator.kept_bytes() <= LARGE + 8192


def huge_kib():
    """Return this process's anonymous memory in huge pages, in KiB."""
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("AnonHugePages"))


def can_have_huge_pages():
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
            return "[never]" not in file.read()
    except OSError:
        return False


@pytest.mark.skipif(not can_have_huge_pages(), reason="transparent huge pages are switched off")
def test_only_sizes_that_are_requested_often_get_huge_pages():
    allocator.keep_freed_memory()
    before = huge_kib()
    for _ in range(8):
        buffer()
    assert huge_kib() == before
    for step in range(200):
        values = torch.full((LARGE // 4,), float(step))
    assert huge_kib() > before + LARGE // 2048 and bool((values == 199).all())
    fresh = [torch.full((LARGE // 4,), float(step)) for step in range(3)]
    assert all(bool((tensor == step).all()) for step, tensor in enumerate(fresh))


@pytest.mark.skipif(not hasattr(torch.Tensor, "_lazy_clone"), reason="no copy on write in this torch")
def test_kept_buffers_can_be_cloned_lazily():
    allocator.keep_freed_memory()
    tensor = buffer()
    del tensor
    tensor = buffer()
    clone = tensor._lazy_clone()
    clone[0] = 5
    assert tensor[0] == 1 and clone[0] == 5 and bool((clone[1:] == 1).all())
    lasting = tensor._lazy_clone()
    allocator.restore()
    del tensor
    lasting += 1
    assert bool((lasting == 2).all())


def test_a_request_that_is_too_large_returns_kept_memory_and_raises_torchs_error():
    with pytest.raises(RuntimeError) as plain:
        torch.empty(1 << 60, dtype=torch.uint8)
    allocator.keep_freed_memory()
    tensor = buffer()
    del tensor
    with pytest.raises(RuntimeError) as kept:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert str(kept.value).splitlines()[0] == str(plain.value).splitlines()[0]
    assert allocator.kept_bytes() == 0


def test_threads_share_kept_memory():
    allocator.keep_freed_memory()
    wrong = []

    def work(value):
        for round_ in range(200):
            tensor = torch.full(((1 << 16) + 4096 * (round_ % 7),), float(value))
            if not bool((tensor == value).all()):
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_fork_is_safe_while_other_threads_allocate():
    """Runs in its own process. A child that allocates would hang if another thread held the pool's lock at the fork."""
    program = """
import os, signal, threading, torch
from gnna_plugin import allocator
torch.set_num_threads(1)
allocator.keep_freed_memory()
ended = False
def work():
    while not ended:
        torch.empty(1 << 20)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
tensor = torch.ones(12 << 20); del tensor
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        kept = allocator.kept_bytes()
        x = torch.ones(1 << 20)
        os._exit(0 if kept == 0 and float(x.sum()) == 1 << 20 else 1)
    assert os.waitpid(child, 0)[1] == 0
ended = True
for thread in threads: thread.join()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_memory_profiling_stays_balanced():
    allocator.keep_freed_memory()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        for _ in range(3):
            tensor = torch.empty(LARGE // 4)
            del tensor
    assert sum(event.self_cpu_memory_usage for event in profile.events()) == 0
