"""Two processes that train one model end where one process ends, and fail with one message."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.utils.data import Dataset

from chat_app.config.paths import Paths
from chat_app.data.writers import write_jsonl
from chat_app.runs.run import Run
from chat_app.tokenization.encoder import Example
from chat_app.training.distributed_sampler import DistributedBatchSampler
from chat_app.training.pipeline import train_run
from tests.conftest import reading_of
from tests.training.test_trainer import weights

pytestmark = pytest.mark.slow_file

ROOT = Path(__file__).resolve().parents[2]


def two_processes(paths: Paths, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command train in two processes on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "CHAT_APP_HOME": str(paths.home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, "-m", "chat_app", "train", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def curve(run: Run, name: str) -> list[tuple[int, float]]:
    return [(line["step"], line[name]) for line in run.metrics() if name in line]


def test_two_processes_give_the_curve_of_one(prepare: Callable[..., Run], paths: Paths) -> None:
    """19 conversations in batches of 4: the last batch of an epoch is not full, and once one process has no row."""
    same_else = {"dropout": 0.0, "log_every": 1, "valid_share": 0.15, "batch_size": 4, "accumulation": 2}
    one, two = prepare("one", **same_else), prepare("two", **same_else)
    train_run(one, paths)
    done = two_processes(paths, "--resume", str(two.folder))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done: All epochs are done.") == 1
    (first,) = [line for line in done.stderr.splitlines() if line.startswith("Run two in")]
    assert first.endswith(": 8 conversations in each step, 2 on each of 2 processes, 2 times")
    assert two.state().status == "done"
    for name in ("train_loss", "valid_loss"):
        assert len(curve(one, name)) == len(curve(two, name)) > 2
        for (step, value), (other_step, other) in zip(curve(one, name), curve(two, name), strict=True):
            assert step == other_step
            assert other == pytest.approx(value, rel=2e-4)
    first, second = weights(one), weights(two)
    far = sum(int(((first[name] - second[name]).abs() > 1e-4).sum()) for name in first)
    assert far < 0.005 * sum(value.numel() for value in first.values())  # Rounding turns some steps of next to nothing.
    checkpoint = two.newest_checkpoint()
    assert checkpoint is not None
    assert (checkpoint / "rng_state_1.pth").exists()


def test_two_processes_make_one_run_and_fail_with_one_message(
    paths: Paths, tmp_path: Path, make_folder: Callable[..., Path]
) -> None:
    write_jsonl(reading_of(8).conversations, tmp_path / "data.jsonl")
    flags = ["--data", str(tmp_path / "data.jsonl"), "--model", str(make_folder("m")), "--device", "cpu"]
    done = two_processes(paths, *flags, "--batch-size", "3")
    assert done.returncode != 0
    (folder,) = paths.runs.iterdir()
    assert Run(folder).state().status == "failed"
    assert "cannot be shared by 2 processes" in Run(folder).state().reason
    assert done.stderr.count("cannot be shared by 2 processes") == 1


class Numbers(Dataset[Example]):
    def __len__(self) -> int:
        return 7


def test_every_row_is_learned_by_one_process() -> None:
    shares = [list(DistributedBatchSampler(Numbers(), 3, 0, process, 2)) for process in range(2)]
    assert [[len(batch) for batch in share] for share in shares] == [[2, 2, 1], [1, 1, 0]]
    assert sorted(row for share in shares for batch in share for row in batch) == list(range(7))
    again = DistributedBatchSampler(Numbers(), 3, 0, 0, 2)
    again.set_epoch(1)
    assert list(again) != shares[0]
