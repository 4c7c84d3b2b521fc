"""A disk that is full or cannot be written to: a sentence, and a state that is true."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from chat_app.config.paths import Paths
from chat_app.errors import ChatAppError
from chat_app.runs.run import Run
from chat_app.system.disk_errors import explain_disk_error
from chat_app.training.pipeline import train_run

pytestmark = pytest.mark.slow_file

ROOT = Path(__file__).resolve().parents[2]
FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 320 vs 214"),
    RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
    SafetensorError('Error while serializing: I/O error: Os { code: 28, kind: StorageFull, message: "No space" }'),
]


@pytest.mark.parametrize("error", FULL, ids=lambda error: str(error)[:30])
def test_every_writer_that_runs_out_of_space_is_understood(
    prepare: Callable[..., Run], paths: Paths, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run = prepare("a", max_steps=1)

    def fail(*arguments: Any, **named: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("torch.save", fail)
        with pytest.raises(ChatAppError, match="disk is full"):
            train_run(run, paths)
    state = run.state()
    assert state.status == "failed"
    assert "disk is full" in state.reason


def test_a_full_disk_before_the_first_step_is_told_too(
    prepare: Callable[..., Run], paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare("a", max_steps=1)

    def fail(*arguments: Any, **named: Any) -> None:
        raise FULL[0]

    with monkeypatch.context() as patch:
        patch.setattr("chat_app.training.pipeline.tokenize_conversations", fail)
        with pytest.raises(ChatAppError, match="disk is full"):
            train_run(run, paths)
    assert run.state().status == "failed"
    assert "resume" in run.state().reason


def test_another_error_is_not_explained_by_the_disk() -> None:
    assert explain_disk_error(ValueError("no such thing")) is None
    assert explain_disk_error(OSError(errno.EIO, "Input/output error")) is None


SCRIPT = """
import json, os, subprocess, sys
from pathlib import Path
source, disk = Path(sys.argv[1]), Path(sys.argv[2])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True)
subprocess.run(["cp", "-r", str(source), str(disk / "run")], check=True)
from transformers import TrainerCallback
from chat_app.config.paths import Paths
from chat_app.errors import ChatAppError
from chat_app.runs.run import Run
from chat_app.training.pipeline import train_run

class Fill(TrainerCallback):
    def on_step_end(self, args, state, control, **named):
        if state.global_step == 5:
            with open(disk / "filler", "wb", buffering=0) as file:
                try:
                    while file.write(bytes(4096)):
                        pass
                except OSError:
                    pass

run = Run(disk / "run")
try:
    train_run(run, Paths(disk), callbacks=[Fill()])
    told = ""
except ChatAppError as error:
    told = error.sentence()
full = json.loads((run.folder / "state.json").read_text())
(disk / "filler").unlink()
train_run(run, Paths(disk))
print(json.dumps({"told": told, "full": full, "after": run.state().status}))
"""


def may_mount() -> bool:
    command = shutil.which("unshare")
    return bool(command) and not subprocess.run([str(command), "-rm", "true"], capture_output=True).returncode


@pytest.mark.skipif(not may_mount(), reason="no file system can be mounted here")
def test_a_disk_that_fills_up_while_a_run_learns(prepare: Callable[..., Run], tmp_path: Path) -> None:
    run, disk = prepare("full", epochs=3), tmp_path / "disk"
    disk.mkdir()
    command = ["unshare", "-rm", sys.executable, "-c", SCRIPT, str(run.folder), str(disk)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert "disk is full" in found["told"]
    assert found["full"]["status"] == "failed"
    assert "disk is full" in found["full"]["reason"]
    assert found["after"] == "done"
