"""Work in a thread: what it tells arrives, what it raises arrives, and it stops when nobody waits."""

from __future__ import annotations

import threading

import pytest

from chat_app.system.progress import Progress, ProgressCallback, StoppedError
from chat_app.ui.components.background_task import BackgroundTask


def test_what_it_tells_and_what_comes_of_it() -> None:
    may_go_on = threading.Event()

    def do(progress: ProgressCallback) -> int:
        progress(Progress("half"))
        assert may_go_on.wait(180)
        return 7

    work = BackgroundTask(do)
    for text in work:
        if text == "half":
            may_go_on.set()
    assert work.result() == 7


def test_a_fault_arrives_where_the_result_is_asked_for() -> None:
    def do(progress: ProgressCallback) -> int:
        raise ValueError("broken")

    work = BackgroundTask(do)
    assert not list(work)
    with pytest.raises(ValueError, match="broken"):
        work.result()


def test_it_stops_when_nobody_waits() -> None:
    stopped = threading.Event()

    def do(progress: ProgressCallback) -> None:
        try:
            while True:
                progress(Progress("on and on"))
        except StoppedError:
            stopped.set()

    telling = iter(BackgroundTask(do))
    assert next(telling) == "on and on"
    telling.close()  # type: ignore[attr-defined]
    assert stopped.wait(180)
