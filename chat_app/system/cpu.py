"""CPU features: the target that kernels are compiled for, the number of usable cores, and whether bfloat16 is fast."""

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

_NAME, _FEATURES = "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"  # Environment variables that set numba's target.
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18


@dataclass(frozen=True)
class Processor:
    """A compilation target: an LLVM CPU name with its feature flags.

    Attributes:
        name: the CPU name, such as "skylake".
        features: the features that are on, such as "avx2".
        lacks: the features that are off.
    """

    name: str
    features: frozenset[str]
    lacks: frozenset[str] = frozenset()

    @property
    def has_amx(self) -> bool:
        """Whether it has AMX, Intel's matrix unit, for int8 and bfloat16, and the AVX-512 that goes with it."""
        return {"amx-tile", "amx-int8", "amx-bf16", "avx512bf16", "avx512bw"} <= self.features

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that make numba compile for this target in a child process."""
        flags = [*(f"+{one}" for one in sorted(self.features)), *(f"-{one}" for one in sorted(self.lacks))]
        return {_NAME: self.name, _FEATURES: ",".join(flags)}

    @property
    def flags(self) -> str:
        """The features as LLVM's target flags: "+avx2,-avx512f"."""
        return self.environment[_FEATURES]


@cache
def target_processor() -> Processor:
    """The target that kernels are compiled for: this machine's CPU with the features that this process may use, or the
    target that NUMBA_CPU_NAME and NUMBA_CPU_FEATURES set, such as one with fewer instructions.

    On Linux it asks the kernel for permission to use AMX, which holds for the process from then on.
    """
    if _NAME in os.environ:
        flags = [one for one in os.environ.get(_FEATURES, "").split(",") if one]
        has, lacks = (frozenset(one[1:] for one in flags if one[0] == sign) for sign in "+-")
        _may_use_amx()  # Asks for it, if this processor has it.
        return Processor(os.environ[_NAME], has, lacks)
    from llvmlite import binding

    try:
        known = dict(binding.get_host_cpu_features())
    except RuntimeError:  # LLVM cannot detect the features of every architecture.
        known = {}
    features = frozenset(name for name, has in known.items() if has)
    if not _may_use_amx():
        features -= {one for one in features if one.startswith("amx-")}
    processor = Processor(binding.get_host_cpu_name(), features, frozenset(known) - features)
    if processor.has_amx:  # CPUs with AMX do not clock down for 512-bit vectors, so LLVM may use them.
        processor = replace(processor, lacks=processor.lacks | {"prefer-256-bit"})
    return processor


def _may_use_amx() -> bool:
    """Ask Linux for permission to use AMX's tile registers. Source: Linux, Documentation/arch/x86/xstate.rst."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0)


_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def count_processors(quota: Path = _QUOTA) -> int:
    """The number of physical cores that this process may use: its CPU affinity, limited by its container's CPU quota.

    Args:
        quota: the file with the quota of the control group: microseconds of CPU time, and the period in microseconds.
            Source: Linux, Documentation/admin-guide/cgroup-v2.rst, cpu.max.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = min(bound, psutil.cpu_count(logical=False) or 1)
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        microseconds, period = quota.read_text(encoding="ascii").split()
        return max(min(here, math.ceil(int(microseconds) / int(period))), 1)
    return here


@cache
def bfloat16_is_fast(size: int = 512) -> bool:
    """Whether torch multiplies bfloat16 matrices at least 1.3 times as fast as float32 ones on this CPU.

    With AMX it does; other CPUs are measured once, which takes some milliseconds.

    Args:
        size: rows and columns of the matrices to measure with.
    """
    if target_processor().has_amx:
        return True
    import torch  # Slow to import, so only where it is needed.

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
