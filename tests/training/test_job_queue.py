"""Training in a child process: started, stopped, killed with and without the program that started it, and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from chat_app.config.paths import Paths
from chat_app.errors import RunError
from chat_app.runs.run import Run
from chat_app.training.job_queue import Jobs
from chat_app.training.pipeline import train_run
from tests.training.test_trainer import same, weights

pytestmark = pytest.mark.slow_file

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 900.0  # Seconds: children step back for everybody else, and start slowly on a busy computer.


@pytest.fixture
def jobs(paths: Paths) -> Iterator[Jobs]:
    queue = Jobs(paths)
    yield queue
    queue.close()


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Look again and again until something is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


def status(run: Run, *wanted: str) -> Callable[[], bool]:
    return lambda: run.state().status in wanted


def child_of(run: Run) -> psutil.Process:
    """The process that trains a run."""
    for process in psutil.process_iter(["cmdline"]):
        if str(run.folder) in (process.info["cmdline"] or []) and "train" in process.info["cmdline"]:
            return process
    raise AssertionError("no process trains this run")


def under_way(run: Run) -> Callable[[], bool]:
    return lambda: run.newest_checkpoint() is not None and run.state().step > 0


def test_a_stopped_run_resumes_and_the_queue_trains_one_after_the_other(
    prepare: Callable[..., Run], jobs: Jobs, paths: Paths
) -> None:
    long = {"epochs": 60, "learning_rate": 1e-3}
    run, whole = prepare("stopped", **long), prepare("whole", **long)
    jobs.submit(run)
    wait_for(under_way(run), "a checkpoint")
    jobs.stop(run)
    wait_for(status(run, "stopped"), "the stop")
    assert 0 < run.state().step < run.state().total_steps
    assert run.has_model
    with pytest.raises(RunError, match="stopped"):
        jobs.stop(run)
    jobs.submit(run)
    jobs.submit(whole)
    wait_for(lambda: run.is_locked() or run.state().status == "done", "the first run")
    assert whole.state().status == "queued"
    wait_for(status(whole, "done"), "the second run")
    assert run.state().status == "done"
    assert run.state().time <= whole.state().time
    assert "done" in run.log.read_text()
    assert same(weights(run), weights(whole))


def test_a_killed_child_is_interrupted_and_resumes_and_closing_the_app_saves(
    prepare: Callable[..., Run], jobs: Jobs, paths: Paths
) -> None:
    run = prepare("killed", epochs=300)
    jobs.submit(run)
    wait_for(under_way(run), "a checkpoint")
    child_of(run).kill()
    wait_for(status(run, "interrupted"), "the interruption")
    wait_for(lambda: "SIGKILL" in run.state().reason or os.name == "nt", "the reason")
    newest, step = run.newest_checkpoint(), run.state().step
    jobs.submit(run)
    wait_for(lambda: run.state().step > step and run.newest_checkpoint() != newest, "another checkpoint")
    jobs.close()
    state = run.state()
    assert state.status == "interrupted"
    checkpoint = run.newest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.name == f"checkpoint-{state.step}"
    run.change(epochs=1 + state.step // 4)
    train_run(run, paths)
    assert run.state().status == "done"
    assert torch.isfinite(weights(run)["transformer.wte.weight"]).all()


def start_program(paths: Paths) -> subprocess.Popen[bytes]:
    """A program of its own that trains the queue of a home, as the app does."""
    code = "import sys, time\nfrom pathlib import Path\n"
    code += "from chat_app.config.paths import Paths\nfrom chat_app.training.job_queue import Jobs\n"
    code += "jobs = Jobs(Paths(Path(sys.argv[1])))\ntime.sleep(600)"
    return subprocess.Popen([sys.executable, "-c", code, str(paths.home)], cwd=ROOT)


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is of POSIX systems")
@pytest.mark.parametrize("victims", ["app", "both"])
def test_a_killed_app_leaves_a_run_that_resumes(
    prepare: Callable[..., Run],
    paths: Paths,
    victims: str,
) -> None:
    run = prepare("orphan", epochs=300)
    run.note(queued=True)
    app = start_program(paths)
    try:
        wait_for(under_way(run), "a checkpoint")
        child = child_of(run)
        app.send_signal(signal.SIGKILL)
        app.wait()
        if victims == "both":
            child.kill()
        wait_for(status(run, "interrupted"), "the interruption")
        wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the end of the child")
    finally:
        app.kill()
        app.wait()
    step = run.state().step
    run.change(epochs=1 + step // 4)
    again = Jobs(paths)
    try:
        assert run.state().status == "interrupted"
        if victims == "app":
            again.submit(run)
            wait_for(status(run, "done"), "the end")
    finally:
        again.close()
    if victims == "both":  # What a child would do.
        train_run(run, paths)
        assert run.state().status == "done"
    assert run.has_model


def test_a_run_that_waits_can_be_stopped(prepare: Callable[..., Run], paths: Paths) -> None:
    run = prepare("waiting")
    queue = Jobs(paths)
    queue.close()
    queue.submit(run)
    queue.stop(run)
    assert run.state().status == "stopped"


def test_a_mistake_is_told_in_the_state(prepare: Callable[..., Run], jobs: Jobs) -> None:
    run = prepare("broken")
    run.change(model="no/such-model-here")
    jobs.submit(run)
    wait_for(status(run, "failed"), "the failure")
    assert "no/such-model-here" in run.state().reason or "Hub" in run.state().reason
    with pytest.raises(RunError, match="failed"):
        jobs.stop(run)


def test_waiting_runs_change_places_and_the_order_is_on_the_disk(prepare: Callable[..., Run], paths: Paths) -> None:
    queue = Jobs(paths)
    queue.close()
    runs = [prepare(name) for name in ("a", "b", "c")]
    for run in runs:
        queue.submit(run)

    def order(jobs: Jobs) -> str:
        return "".join(run.id for run in jobs.waiting())

    assert order(queue) == "abc"
    queue.move(runs[2], -1)
    assert order(queue) == "acb"
    queue.move(runs[0], 1)
    assert order(queue) == "cab"
    queue.move(runs[2], -1)  # It is the first already.
    assert order(queue) == "cab"
    queue.move(runs[1], -1, among=[runs[1], runs[2]])  # What is between belongs to somebody else and stays.
    assert order(queue) == "bac"
    again = Jobs.__new__(Jobs)
    again._paths = paths
    assert order(again) == "bac"
    queue.stop(runs[0])
    assert order(queue) == "bc"
    with pytest.raises(RunError, match="does not wait"):
        queue.move(runs[0], 1)
    runs[1].folder.joinpath("place.json").write_text("broken")  # It has waited since it was put there.
    assert sorted(order(queue)) == ["b", "c"]
