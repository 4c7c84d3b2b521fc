"""The kernels can be compiled for ARM processors: LLVM verifies and assembles them for aarch64, on any machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.long, pytest.mark.dependencies]

# numba only compiles for its own machine, but what it hands to LLVM before LLVM has optimized it suits any 64-bit one.
SCRIPT = r"""
import json, re, sys
from llvmlite import binding
from numba import types
from chat_app.kernels.decode_step import build_kernel
from chat_app.kernels.numba_internals import llvm_code

code, name = llvm_code(build_kernel(sys.argv[1] == "8-bit"), (types.int64, types.int64))
binding.initialize_all_targets()
binding.initialize_all_asmprinters()
triple = "aarch64-unknown-linux-gnu"
machine = binding.Target.from_triple(triple).create_target_machine(cpu="generic", features="+neon", opt=3)
code = re.sub(r'target triple = ".*"', f'target triple = "{triple}"', code)
code = re.sub(r'target datalayout = ".*"', f'target datalayout = "{machine.target_data}"', code)
module = binding.parse_assembly(code)
module.verify()
text = machine.emit_assembly(module)
found = {
    "x86": sorted(set(re.findall(r"llvm\.x86[\w.]+", code))),
    "fmla": text.count("fmla"),
    "products": len(re.findall(r"\t(?:mul|mla|smull2?|smlal2?)\tv", text)),
    "size": len(machine.emit_object(module)),
}
print(json.dumps(found))
"""


@pytest.mark.parametrize("layout", ["8-bit", "bfloat16"])
def test_a_kernel_without_x86_is_assembled_for_arm(layout):
    generic = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "", "NUMBA_OPT": "0"}
    command = [sys.executable, "-c", SCRIPT, layout]
    done = subprocess.run(command, env={**os.environ, **generic}, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(re.findall(r"\{.*\}", done.stdout)[-1])
    assert found["x86"] == [], "instructions of x86 are chosen for x86 only"
    assert found["size"] > 10_000
    assert found["products" if layout == "8-bit" else "fmla"] > 0, "NEON multiplies vectors"
