"""Runs the compiled step of a tiny model under valgrind's memcheck, and counts what it finds in the kernels.

    python -m tests.kernels.memcheck

valgrind knows AVX2, but not AVX-512 nor AMX: the kernels are compiled without those. An error counts if the instruction
that it names lies in machine code that belongs to no file, which only the kernels' does. Python and torch are not
looked at. Takes some minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from chat_app.system.cpu import Processor

AVX2 = Processor("haswell", frozenset({"avx", "avx2", "fma", "bmi", "bmi2", "f16c", "sse4.2", "popcnt"}))
STEPS = """
import torch
torch.set_num_threads(2)
from chat_app.inference.gpt2.model_runner import GPT2ModelRunner
from chat_app.inference.model_runner import Chunk
from chat_app.kernels.packed_weights import get_kernel
from tests.inference.gpt2.test_model_runner import model_of
for layout in ("8-bit", "packed"):
    get_kernel(layout == "8-bit").result()
    model = model_of(n_embd=32, n_head=2, n_layer=1, vocab_size=97)
    runner = GPT2ModelRunner(model.to(torch.bfloat16) if layout == "packed" else model, 128, layout)
    caches = [runner.new_kv_cache() for _ in range(3)]
    for rows in (1, 3, 20):
        logits = runner.step([Chunk([5] * rows, None, one, True) for one in caches])
        print(layout, rows, float(sum(row.sum() for row in logits)))
"""


def count_errors(report: Path) -> tuple[int, int]:
    """The errors in valgrind's report: in machine code of no file, and all."""
    errors = ElementTree.parse(report).getroot().findall("error")
    tops = [error.find("stack/frame") for error in errors]
    return sum(top is not None and top.find("obj") is None and top.find("fn") is None for top in tops), len(tops)


def main() -> None:
    """Run and report; the exit code is 1 if there is an error in a kernel."""
    if not shutil.which("valgrind"):
        sys.exit("This needs valgrind.")
    environment = {**os.environ, **AVX2.environment, "PYTHONMALLOC": "malloc"}
    subprocess.run([sys.executable, "-c", STEPS], env=environment, check=True)  # Compiles, without valgrind.
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "memcheck.xml"
        options = ["--tool=memcheck", "--xml=yes", f"--xml-file={report}", "--error-limit=no", "--num-callers=4"]
        command = ["valgrind", *options, "--track-origins=no", sys.executable, "-c", STEPS]
        subprocess.run(command, env=environment, check=True)
        in_kernels, everywhere = count_errors(report)
    print(f"memcheck: {in_kernels} errors in the kernels ({everywhere} in all of Python, torch and numpy)")
    sys.exit(1 if in_kernels else 0)


if __name__ == "__main__":
    main()
