"""How much memory there is, giving it back, and telling that it ran out."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from pathlib import Path

import psutil


def measure_free_memory(device: str) -> int:
    """Bytes that can still be used on a device. In a container, those that the container may use."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    try:  # Linux containers: the limit of control group v2, less what cannot be dropped.
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return free
    return max(min(free, limit - used + int(stat.get("inactive_file", 0))), 0)


def release_memory() -> None:
    """Hand what is no longer used back to the system, which Python, CUDA and the C library would keep for later."""
    gc.collect()
    torch = sys.modules.get("torch")  # A process that never imported it holds no memory of CUDA.
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # Not glibc: its allocator returns memory by itself.
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, in one of the many ways in which that is said."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return any(sign in text for sign in ("out of memory", "can't allocate", "not enough memory"))
