"""Real processes of one run: stopped before they begin, two at once, ended by signals, killed while preparing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chat_app.config.paths import Paths
from chat_app.errors import RunError
from chat_app.runs.run import Run, State
from chat_app.system.installation import child_environment
from chat_app.training import job_queue
from chat_app.training.job_queue import Jobs
from chat_app.training.prepare import write_run
from tests.conftest import CONFIG, reading_of
from tests.training.test_job_queue import status, under_way, wait_for

pytestmark = pytest.mark.slow_file

ROOT = Path(__file__).resolve().parents[2]
POSIX = pytest.mark.skipif(os.name == "nt", reason="these signals are of POSIX systems")


def start_child(run: Run, paths: Paths) -> subprocess.Popen[bytes]:
    """The child that a queue starts for a run."""
    return job_queue._start(run, paths)


def test_a_run_that_is_stopped_before_its_child_begins_is_not_trained(
    prepare: Callable[..., Run], paths: Paths
) -> None:
    run = prepare("stopped")
    queue = Jobs(paths)
    queue.close()
    queue.submit(run)
    child = start_child(run, paths)
    queue.stop(run)
    assert child.wait() == 2
    assert run.state().status == "stopped"
    assert run.metrics() == []
    assert "does not wait any more: it is stopped" in run.log.read_text()
    queue._explain_end(run, 2, State("queued"))
    assert run.state().reason == "Stopped before it began."


def test_two_children_of_one_run_train_it_once(prepare: Callable[..., Run], paths: Paths) -> None:
    run = prepare("twice", epochs=1, log_every=1)
    queue = Jobs(paths)
    queue.close()
    queue.submit(run)
    children = [start_child(run, paths) for _ in range(2)]
    assert sorted(child.wait() for child in children) == [0, 2]
    assert run.state().status == "done"
    steps = [line["step"] for line in run.metrics() if "train_loss" in line]
    assert steps == sorted(set(steps))


def test_two_programs_on_one_home_start_one_child(prepare: Callable[..., Run], paths: Paths) -> None:
    queues = [Jobs(paths), Jobs(paths)]
    try:
        run = prepare("shared", epochs=1)
        queues[0].submit(run)
        queues[1]._wake.set()
        wait_for(status(run, "done", "failed"), "the end")
    finally:
        for queue in queues:
            queue.close()
    assert run.state().status == "done"
    assert run.log.read_text().count(f"Run {run.id} in") == 1


@POSIX
@pytest.mark.parametrize(("name", "words"), [("SIGHUP", "terminal"), ("SIGTERM", "asked to end")])
def test_a_signal_saves_a_checkpoint_and_is_told(
    prepare: Callable[..., Run], paths: Paths, name: str, words: str
) -> None:
    run = prepare("signal", epochs=300)
    environment = {**child_environment(), "CHAT_APP_HOME": str(paths.home)}
    command = [sys.executable, "-m", "chat_app", "train", "--resume", str(run.folder)]
    number = getattr(signal, name)
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # `nohup pytest` would hand down its ignoring.
    )
    try:
        wait_for(under_way(run), "a checkpoint")
        child.send_signal(number)
        _, errors = child.communicate()
    finally:
        child.kill()
    assert child.returncode == 128 + number
    state = run.state()
    assert state.status == "interrupted"
    assert name in state.reason
    assert words in state.reason
    assert state.reason in errors.decode()
    checkpoint = run.newest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.name == f"checkpoint-{state.step}"


PREPARE = """
import sys
from pathlib import Path
from chat_app.config.paths import Paths
from chat_app.training.prepare import write_run
from tests.conftest import CONFIG, reading_of

class Slow:
    def iterate_located(self):
        yield from reading_of(3).iterate_located()
        print("half", flush=True)
        sys.stdin.read()

    def iterate_problems(self):
        return iter(())

home = Path(sys.argv[1])
write_run(CONFIG, Slow(), Paths(home), folder=home / "runs" / "half")
"""


@pytest.fixture
def half_prepared(paths: Paths) -> Run:
    """A run whose process was killed while it was prepared."""
    command = [sys.executable, "-c", PREPARE, str(paths.home)]
    child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline().strip() == b"half"
    run = Run(paths.runs / "half")
    assert run.state() == State("queued", "Its conversations are being read.")
    with pytest.raises(RunError, match="Another process is preparing"):
        write_run(CONFIG, reading_of(), paths, folder=run.folder)
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    return run


def test_a_run_that_was_killed_while_it_was_prepared_says_so_and_is_prepared_again(
    half_prepared: Run, paths: Paths
) -> None:
    run = half_prepared
    assert run.state().status == "failed"
    assert "ended while it prepared this run" in run.state().reason
    queue = Jobs(paths)
    queue.close()
    with pytest.raises(RunError, match="prepared this run"):
        queue.submit(run)
    with pytest.raises(RunError, match="prepared this run"), run.claim():
        pass
    again = write_run(CONFIG, reading_of(), paths, folder=run.folder)
    assert again.state().status == "queued"
    assert again.about()["train_conversations"] == 16


def test_other_files_are_not_taken_for_a_run(paths: Paths) -> None:
    mine = paths.home / "letters"
    mine.mkdir(parents=True)
    (mine / "letter.txt").write_text("mine")
    with pytest.raises(RunError, match="other files"):
        write_run(CONFIG, reading_of(), paths, folder=mine)
    assert (mine / "letter.txt").read_text() == "mine"
