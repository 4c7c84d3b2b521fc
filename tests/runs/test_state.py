"""The state of a run is changed in one piece, also on a full disk."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from chat_app.config.training import TrainConfig
from chat_app.errors import RunError
from chat_app.runs import owner
from chat_app.runs.run import Run
from chat_app.runs.state import StateFile


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs" / "one", TrainConfig(epochs=3), {"files": ["a.tsv"]})


def test_a_state_that_was_changed_meanwhile_is_not_overwritten(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of a run has died, and the run is queued again while somebody looks at it."""
    run.set_state("running", "Learning.", 5, 9)

    def queue_again(self: Run) -> bool:
        if StateFile(run.folder).read().status == "running":  # type: ignore[union-attr]
            run.set_state("queued", "Waiting for its turn.")
        return False

    monkeypatch.setattr(Run, "is_locked", queue_again)
    assert run.state().status == "queued"
    seen = run.state()
    run.set_state("queued", "Waiting for its turn.")
    assert not run.replace_state(seen, "failed", "Too late.")
    assert run.state().status == "queued"


def test_a_run_is_claimed_by_one_of_many_and_only_while_it_waits(run: Run) -> None:
    claimed: list[int] = []
    refused, ended = threading.Semaphore(0), threading.Event()

    def claim(number: int) -> None:
        try:
            with run.claim(only_queued=True):
                claimed.append(number)
                ended.wait()
        except RunError:
            refused.release()

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    assert all(refused.acquire(timeout=60) for _ in threads[1:])
    ended.set()
    for thread in threads:
        thread.join()
    assert len(claimed) == 1
    run.set_state("stopped", "Stopped before it began.")
    with pytest.raises(RunError, match="does not wait any more: it is stopped"), run.claim(only_queued=True):
        pass
    assert run.state().status == "stopped"


def test_a_stop_is_never_lost(run: Run) -> None:
    assert not run.stop_active("Finishing.")
    with run.claim():
        assert run.stop_active("Finishing.")
        assert run.stop_requested()
        assert run.state().status == "stopping"
    run.set_state("done", "All epochs are done.")
    assert not run.stop_active("Finishing.")
    assert run.state().status == "done"


def test_a_computer_whose_locks_are_not_seen_is_known_by_its_heartbeat(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.set_state("running", "Learning.", 5, 9)
    beat = {"host": "another computer", "process": 7, "time": 1000.0}
    (run.folder / "owner.json").write_text(json.dumps(beat))
    monkeypatch.setattr(owner.time, "time", lambda: 1000.0 + owner.STALE_SECONDS / 2)
    assert run.state().status == "running"
    with pytest.raises(RunError, match="another computer is training"), run.claim():
        pass
    monkeypatch.setattr(owner.time, "time", lambda: 1001.0 + owner.STALE_SECONDS)
    assert run.state().status == "interrupted"


def test_the_last_state_is_written_on_a_full_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.set_state("running", "Learning.", 5, 9)

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("chat_app.runs.state.write_json", full)
        run.set_state("failed", "The disk is full. " + "\u00e9\U0001f600" * 2000)
    state = run.state()
    assert (state.status, state.step, state.total_steps) == ("failed", 5, 9)
    assert state.reason.startswith("The disk is full.")
    run.set_state("stopped", "")
    assert run.state().status == "stopped"


def test_a_state_that_cannot_be_written_is_shown_all_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.set_state("running", "Learning.", 5, 9)

    def refuse(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("chat_app.runs.state.write_json", refuse)
    assert run.state().status == "interrupted"
