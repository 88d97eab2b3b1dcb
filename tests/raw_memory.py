"""Calls torch's CPU allocator as C++ code does, through ctypes and the Itanium C++ ABI."""

from __future__ import annotations

import ctypes

_ALLOCATE, _RAW_DELETER = 2, 4  # entries of c10::Allocator's vtable. Entries 0 and 1 are the destructors
_DATA_PTR_WORDS = 4  # size of a c10::DataPtr, whose first word is the address


def current_allocator() -> int:
    """Return the address of torch's current CPU allocator."""
    function = ctypes.CDLL("libc10.so")["_ZN3c1015GetCPUAllocatorEv"]
    function.restype = ctypes.c_void_p
    return function()


def _virtual(allocator: int, place: int) -> int:
    table = ctypes.c_void_p.from_address(allocator).value
    return ctypes.c_void_p.from_address(table + place * ctypes.sizeof(ctypes.c_void_p)).value


def raw_allocate(allocator: int, size: int) -> int:
    result = (ctypes.c_void_p * _DATA_PTR_WORDS)()  # a DataPtr that is never destroyed, so the caller owns the memory
    call = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    call(_virtual(allocator, _ALLOCATE))(ctypes.addressof(result), allocator, size)
    return result[0]


def raw_deallocate(allocator: int, address: int) -> None:
    deleter = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(_virtual(allocator, _RAW_DELETER))(allocator)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(deleter)(address)


def free(address: int) -> None:
    call = ctypes.CDLL(None).free
    call.argtypes, call.restype = [ctypes.c_void_p], None
    call(address)
