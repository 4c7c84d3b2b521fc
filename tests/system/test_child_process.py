"""Work in child processes: results, progress, errors and deaths arrive, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from chat_app.errors import (
    BusyError,
    ChatAppError,
    ChildProcessDiedError,
    DataError,
    ModelError,
    NotEnoughMemoryError,
    SettingError,
)
from chat_app.system.child_job import run_in_child
from chat_app.system.child_process import EXIT_OUT_OF_MEMORY, EXIT_THREAD_FAILED, explain_exit
from chat_app.system.progress import Progress, ProgressCallback, StoppedError
from chat_app.system.sent_errors import SentError

HERE = __name__


class LocalError(ModelError):
    """Known only where it is raised."""


def add(left: int, right: int, *, progress: ProgressCallback) -> tuple[int, int]:
    """A job: it reports twice."""
    progress(Progress("Adding.", 1, 2))
    progress(Progress("Added.", 2, 2))
    return left + right, os.getpid()


def fail(kind: str) -> None:
    """A job that fails in one of several ways."""
    if kind == "sentence":
        raise SettingError("size", "It is too large.", advice="Take a smaller one.")
    if kind == "disk":
        raise OSError(28, "No space left on device")
    if kind == "memory":
        raise MemoryError
    if kind == "bug":
        raise KeyError("what")
    os.kill(os.getpid(), getattr(signal, kind))


def wait_for_ever(file: str, *, progress: ProgressCallback) -> None:
    """A job that only ends when it is ended."""
    Path(file).write_text(str(os.getpid()))
    progress(Progress("Waiting."))
    while True:
        time.sleep(1)


def describe() -> tuple[int, bool]:
    """A job that tells its priority, and whether it can be interrupted from the keyboard."""
    return os.nice(0), signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_result_and_progress_arrive_from_another_process() -> None:
    seen: list[Progress] = []
    total, pid = run_in_child(f"{HERE}.add", 2, 3, progress=seen.append)
    assert total == 5
    assert pid != os.getpid()
    assert not psutil.pid_exists(pid)
    told = list(dict.fromkeys(seen))  # Without news the callback gets what it knows already.
    assert told[-2:] == [Progress("Adding.", 1, 2), Progress("Added.", 2, 2)]


@pytest.mark.skipif(not hasattr(os, "nice"), reason="this system has no such priorities")
def test_it_has_a_lower_priority_and_leaves_ctrl_c_to_its_parent() -> None:
    priority, ignores = run_in_child(f"{HERE}.describe")
    assert priority > os.nice(0)
    assert ignores


def test_errors_are_what_they_were() -> None:
    with pytest.raises(SettingError) as failure:
        run_in_child(f"{HERE}.fail", "sentence")
    assert (failure.value.field, failure.value.advice) == ("size", "Take a smaller one.")
    with pytest.raises(OSError, match="No space left") as refusal:
        run_in_child(f"{HERE}.fail", "disk")
    assert refusal.value.errno == 28
    with pytest.raises(ChatAppError, match=r"The memory ran out\."):
        run_in_child(f"{HERE}.fail", "memory")
    with pytest.raises(ChatAppError, match="KeyError"):
        run_in_child(f"{HERE}.fail", "bug")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no such signals")
@pytest.mark.parametrize(("kind", "said"), [("SIGKILL", "lack of memory"), ("SIGABRT", r"crashed \(SIGABRT\)")])
def test_a_death_is_a_sentence(kind: str, said: str) -> None:
    with pytest.raises(ChildProcessDiedError, match=said):
        run_in_child(f"{HERE}.fail", kind)


def test_work_that_is_stopped_leaves_no_process(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def stop(now: Progress) -> None:
        if now.message == "Waiting.":
            raise StoppedError

    with pytest.raises(StoppedError):
        run_in_child(f"{HERE}.wait_for_ever", str(file), progress=stop)
    assert not psutil.pid_exists(int(file.read_text()))


def test_an_error_that_only_the_child_knows_is_the_nearest_that_both_know() -> None:
    sent = SentError.of(LocalError("It is broken.", where="a/b", advice="Mend it."))
    assert type(sent.rebuild()) is LocalError
    unknown = SentError(("NowhereError", *sent.classes[1:]), sent.fields).rebuild()
    assert type(unknown) is ModelError
    assert unknown.sentence() == str(unknown) == "a/b: It is broken. Mend it."
    memory = SentError.of(NotEnoughMemoryError("Too large.", 2000, 1000)).rebuild()
    assert isinstance(memory, NotEnoughMemoryError)
    assert (memory.needed, memory.free) == (2000, 1000)
    assert isinstance(SentError.of(BusyError("Full.")).rebuild(), BusyError)
    assert isinstance(SentError.of(DataError("Bad.")).rebuild(), ValueError)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (EXIT_OUT_OF_MEMORY, "the memory ran out"),
        (EXIT_THREAD_FAILED, "It crashed."),
        (3, "(code 3)"),
        (None, "It ended."),
    ],
)
def test_exit_codes_in_words(code: int | None, said: str) -> None:
    assert said in explain_exit(code, "It").what
