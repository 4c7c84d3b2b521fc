"""Where to compute and in which numbers: what this machine has and what it is fast at."""

from __future__ import annotations

import contextlib
import math
import os
import time
from functools import cache
from pathlib import Path

import psutil
import torch

from chat_app.config import AUTOMATIC
from chat_app.errors import SettingError
from chat_app.processor import this_processor

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def resolve_device(device: str) -> str:
    """ "cpu", "cuda" or "mps" for a setting.

    Raises:
        SettingError: that device is not here.
    """
    if device == AUTOMATIC:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind = device.partition(":")[0]
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(kind, False):
        raise SettingError("device", f"There is no '{device}' here.", advice="Choose automatic or cpu.")
    return kind


def resolve_precision(precision: str, device: str) -> str:
    """What to compute in: bfloat16 where the processor or GPU is fast at it. On a processor that is measured."""
    if precision != AUTOMATIC:
        return precision
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if device == "cpu" and bfloat16_is_fast() else "float32"


def processors(quota: Path = _QUOTA) -> int:
    """How many processors this process may use: those it is bound to, as far as its container may use them.

    Args:
        quota: where Linux tells a container's share, in microseconds of so many. Source: Linux,
            Documentation/admin-guide/cgroup-v2.rst, cpu.max.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = min(bound, psutil.cpu_count(logical=False) or 1)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        microseconds, period = quota.read_text(encoding="ascii").split()
        return max(min(here, math.ceil(int(microseconds) / int(period))), 1)
    return here


@cache
def bfloat16_is_fast(size: int = 512) -> bool:
    """Whether this processor multiplies bfloat16 matrices at least 1.3 times as fast as float32 ones.

    One with a matrix unit does; others are measured once, which takes some milliseconds.
    """
    if this_processor().has_matrix_unit:
        return True
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        left = torch.ones(size, size, dtype=dtype, device="cpu")
        right = torch.ones(size, size, dtype=dtype, device="cpu")
        best = math.inf
        for _ in range(5):
            started = time.perf_counter()
            left @ right
            best = min(best, time.perf_counter() - started)
        times[dtype] = best
    return times[torch.float32] > 1.3 * times[torch.bfloat16]
