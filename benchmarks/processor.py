"""What a table of measurements says about the machine that it was made on."""

from __future__ import annotations

import platform
from pathlib import Path

from chat_app.system.cpu import count_processors, target_processor


def processor_name() -> str:
    """Such as "AMD EPYC (znver3, avx2), 2 processors": the processor's own name, and what kernels are compiled for."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    target = target_processor()
    widest = next((one for one in ("amx-int8", "avx512bw", "avx2", "neon") if one in target.features), "generic")
    return f"{name} ({target.name}, {widest}), {count_processors()} processors"
