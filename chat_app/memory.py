"""The memory of this machine: what is free of it, whether a model fits, and giving it back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path

import psutil
import torch

from chat_app.errors import ModelError
from chat_app.model_files import ModelFiles, estimate_memory


def free_memory(device: str) -> int:
    """Bytes that can still be used on a device. In a container, those that the container may use."""
    if device.startswith("cuda"):
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


def check_memory(files: ModelFiles, precision: str, device: str) -> None:
    """Refuse what would not fit.

    Raises:
        ModelError: with what is needed and what is free.
    """
    needed, free = estimate_memory(files, precision), free_memory(device)
    if needed > free:
        raise ModelError(
            f"The model needs about {needed / 2**30:.1f} GB of memory, and {free / 2**30:.1f} GB are free.",
            advice="Unload the model in use, choose 8-bit or 4-bit, or take a smaller model.",
        )


def release_memory() -> None:
    """Hand what is no longer used back to the system, which Python, CUDA and the C library would keep for later."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # Not glibc: its allocator returns memory by itself.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
