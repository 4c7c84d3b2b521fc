"""A minute of everything at once, in a process of its own, which must neither die nor write anything wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import build_model

pytestmark = pytest.mark.slow_file

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60
LONGEST = 1500  # What only a fault reaches: on a slow and busy computer a training alone takes minutes.
TASKS = {"_chat_steadily", "_chat_with_the_one_in_use", "_switch", "_use_guests", "_evaluate", "_teach"}


@pytest.mark.slow
@pytest.mark.timeout(LONGEST + 60)
def test_a_minute_of_everything_at_once(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    """Models of bfloat16: what transformers makes the process's type while it builds one."""
    folders = []
    for seed in range(3):
        folders.append(make_folder(f"model {seed}", width=64))
        vocabulary = json.loads((folders[-1] / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        build_model(vocabulary, 64, seed).to(torch.bfloat16).save_pretrained(folders[-1])
    command = [sys.executable, "-m", "tests.inference.stress", str(tmp_path / "home"), str(SECONDS), *map(str, folders)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stdout[-2000:]} {done.stderr[-4000:]}"
    assert set(json.loads(done.stdout.splitlines()[-1])["done"]) == TASKS
