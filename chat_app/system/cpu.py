"""The processor that functions are compiled for, and what it can do."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import sys
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import psutil

_NAME, _FEATURES = "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"  # Where the compiler is told so.
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18


@dataclass(frozen=True)
class Processor:
    """A kind of processor, in LLVM's words.

    Attributes:
        name: such as "skylake".
        features: what it has, such as "avx2".
        lacks: what it has not.
    """

    name: str
    features: frozenset[str]
    lacks: frozenset[str] = frozenset()

    @property
    def has_amx(self) -> bool:
        """Whether it has AMX, Intel's matrix unit, for int8 and bfloat16."""
        return {"amx-tile", "amx-int8", "amx-bf16", "avx512bf16", "avx512bw"} <= self.features

    @property
    def environment(self) -> dict[str, str]:
        """What tells the compiler in another process."""
        flags = [*(f"+{one}" for one in sorted(self.features)), *(f"-{one}" for one in sorted(self.lacks))]
        return {_NAME: self.name, _FEATURES: ",".join(flags)}

    @property
    def flags(self) -> str:
        """What tells LLVM."""
        return self.environment[_FEATURES]


@cache
def target_processor() -> Processor:
    """The processor that kernels are compiled for: this one with all that this process may use of it, or the one that
    NUMBA_CPU_NAME and NUMBA_CPU_FEATURES in the environment name, such as one with fewer instructions."""
    if _NAME in os.environ:
        flags = [one for one in os.environ.get(_FEATURES, "").split(",") if one]
        has, lacks = (frozenset(one[1:] for one in flags if one[0] == sign) for sign in "+-")
        _may_use_amx()  # Asks for it, if this processor has it.
        return Processor(os.environ[_NAME], has, lacks)
    from llvmlite import binding

    try:
        known = dict(binding.get_host_cpu_features())
    except RuntimeError:  # LLVM cannot tell for every kind of processor.
        known = {}
    features = frozenset(name for name, has in known.items() if has)
    if not _may_use_amx():
        features -= {one for one in features if one.startswith("amx-")}
    processor = Processor(binding.get_host_cpu_name(), features, frozenset(known) - features)
    if processor.has_amx:  # These do not slow down for 512-bit vectors, as LLVM fears.
        processor = replace(processor, lacks=processor.lacks | {"prefer-256-bit"})
    return processor


def _may_use_amx() -> bool:
    """Ask the system for the tile registers of AMX. Source: Linux, Documentation/arch/x86/xstate.rst."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0)


_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def count_processors(quota: Path = _QUOTA) -> int:
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

    One with AMX does; others are measured once, which takes some milliseconds.
    """
    if target_processor().has_amx:
        return True
    import torch  # Heavy: only where it is asked.

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
