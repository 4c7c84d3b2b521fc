"""Memory: how much is available, returning it to the system, and recognizing out-of-memory errors."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from pathlib import Path

import psutil

_SIGNS = (
    *("out of memory", "can't allocate", "cannot allocate", "not enough memory", "bad_alloc", "bad allocation"),
    *("failed to map segment", "can't start new thread"),  # The loader of libraries, and the start of a thread.
)


def measure_free_memory(device: str) -> int:
    """The bytes that can still be allocated on a device; in a container, within the limit of its control group.

    Args:
        device: "cpu", "cuda", "cuda:1" or "mps", which shares the memory of the CPU.
    """
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    try:  # Control group v2: its limit less its usage, of which the inactive page cache can be reclaimed.
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return free
    return max(min(free, limit - used + int(stat.get("inactive_file", 0))), 0)


def release_memory() -> None:
    """Return unused memory to the system, which Python, torch's CUDA allocator and glibc would keep for later."""
    gc.collect()
    torch = sys.modules.get("torch")  # Without torch the process has no CUDA allocator.
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # Other C libraries return memory by themselves.
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is an out-of-memory error of Python, of torch or, by its message, of another library."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return any(sign in text for sign in _SIGNS)
