"""Buffers that end where a protected page begins: compiled code that reads or writes past one ends the process at once,
at the instruction that did it, and not later by a fault somewhere else.

    | protected page | fill | the buffer | protected page |

What cannot end there (a buffer is aligned, and pages are not as small as buffers) is filled with NaN, and so is a new
buffer itself: what is computed from memory that was never written to is no number then. Writes into the fill before a
buffer are found by `check_fills`. For tests, on systems with `mprotect`.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np

from chat_app.errors import SettingError
from chat_app.kernels.layout import round_up
from chat_app.kernels.mode import SWITCH

PAGE = mmap.PAGESIZE
_NAN_BYTE = 0xFF  # Four of them are a NaN of float32, and two of bfloat16.
_NO_ACCESS = 0  # PROT_NONE of <sys/mman.h>.


class GuardedMemoryError(AssertionError):
    """Compiled code wrote outside of its buffers: a fault of this program, not of its user."""


class _Buffers:
    """The live buffers: where each begins and ends, and how much fill is before it. They are not kept alive by this."""

    def __init__(self) -> None:
        self._spans: dict[int, tuple[int, int]] = {}  # Address -> bytes of the buffer, and of the fill before it.

    def add(self, owner: Any, address: int, size: int, fill: int) -> None:
        """Look after a buffer until the owner of its memory is collected."""
        self._spans[address] = size, fill
        weakref.finalize(owner, self._spans.pop, address, None)

    def holds(self, address: int, size: int) -> bool:
        """Whether so many bytes from an address on lie in a buffer, and end where it ends."""
        spans = tuple(self._spans.items())
        return any(begin <= address and address + size == begin + length for begin, (length, _) in spans)

    def is_damaged(self) -> bool:
        """Whether something was written into a fill."""
        fills = tuple((address - fill, fill) for address, (_, fill) in tuple(self._spans.items()))
        return any(ctypes.string_at(begin, fill).strip(bytes([_NAN_BYTE])) for begin, fill in fills)


_BUFFERS = _Buffers()


def allocate_guarded(size: int, alignment: int, *, zeros: bool = False) -> Any:
    """A buffer that ends at a protected page, uint8 [size].

    Args:
        size: in bytes.
        alignment: of its address, in bytes, a power of two up to the size of a page. The buffer ends as far before the
            page as it must for it.
        zeros: whether it is filled with zeros, and not with NaN.
    """
    room = round_up(max(size, 1), PAGE)
    region = _map_region(room + 2 * PAGE)
    memory = np.frombuffer(region, np.uint8)
    memory[:] = _NAN_BYTE
    protect(memory, [0, PAGE + room])
    start = PAGE + room - round_up(size, alignment)
    buffer = memory[start : start + size]
    if zeros:
        buffer[:] = 0
    _BUFFERS.add(region, memory.ctypes.data + start, size, start - PAGE)
    return buffer


def allocate_with_protected_pages(size: int, pages: Iterable[int]) -> Any:
    """Memory that begins with a page, uint8 [size], filled with NaN.

    Args:
        size: in bytes, a multiple of PAGE.
        pages: the offsets of pages in it that are protected, multiples of PAGE.
    """
    region = _map_region(max(size, PAGE))
    memory = np.frombuffer(region, np.uint8)[:size]
    memory[:] = _NAN_BYTE
    protect(memory, pages)
    _BUFFERS.add(region, memory.ctypes.data, size, 0)
    return memory


def protect(memory: Any, pages: Iterable[int]) -> None:
    """Forbid to read and to write the pages at these offsets.

    Raises:
        SettingError: this system cannot.
    """
    base = memory.ctypes.data
    for offset in pages:
        if _libc().mprotect(ctypes.c_void_p(base + offset), ctypes.c_size_t(PAGE), _NO_ACCESS):
            raise SettingError(SWITCH, "Memory cannot be guarded here.", advice="Leave it out, or set it to on.")


def is_guarded(address: int, size: int) -> bool:
    """Whether so many bytes from an address on are guarded by a protected page that follows them."""
    return _BUFFERS.holds(address, size)


def check_fills() -> None:
    """Find writes before the beginning of a buffer.

    Raises:
        GuardedMemoryError: there was one.
    """
    if _BUFFERS.is_damaged():
        raise GuardedMemoryError("Compiled code has written before the beginning of a buffer.")


def _map_region(size: int) -> mmap.mmap:
    _libc()
    return mmap.mmap(-1, size)


def _libc() -> Any:
    """The C library of the system.

    Raises:
        SettingError: this is Windows.
    """
    if os.name != "posix":
        advice = "Leave it out, or set it to on."
        raise SettingError(SWITCH, "Memory can be guarded on Linux and macOS only.", advice=advice)
    return ctypes.CDLL(None, use_errno=True)
