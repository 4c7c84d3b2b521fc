"""Work that takes long, in a thread of its own: it reports its progress, and stops when no page waits for it any more.

Here is also what every panel does with such work: the row that shows it, and the way to its end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any, Generic, TypeVar

import gradio as gr

from chat_app.errors import ChatAppError
from chat_app.system.progress import Progress, ProgressCallback, stop_when
from chat_app.ui.components import formatting
from chat_app.ui.components.escape import warn
from chat_app.ui.components.events import Updates
from chat_app.ui.components.notices import render_progress

T = TypeVar("T")
Outputs = TypeVar("Outputs")
FIRST_LOOK, LOOK_EVERY = 0.15, 0.5


class BackgroundTask(Generic[T]):
    """Work in a thread of its own, which starts at once.

    Iterating gives the newest progress message, now and then, until the work has ended; an iteration that is given up
    stops it.

    Args:
        do: does the work. The callback that it is given shows messages and raises StoppedError when it should stop.
    """

    def __init__(self, do: Callable[[ProgressCallback], T]):
        self._do, self._stop, self._ended = do, threading.Event(), threading.Event()
        self._message = ""
        self._result: T | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="reading", daemon=True).start()

    def __iter__(self) -> Iterator[str]:
        try:
            wait = FIRST_LOOK
            while not self._ended.wait(wait):
                yield self._message
                wait = LOOK_EVERY
        finally:
            self._stop.set()

    def result(self) -> T:
        """Return the result, once the iteration has ended.

        Raises:
            Whatever the work has raised.
        """
        if self._error is not None:
            raise self._error
        assert self._ended.is_set()
        return self._result  # type: ignore[return-value]

    def _run(self) -> None:
        try:
            self._result = self._do(stop_when(self._stop.is_set, self._report))
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    def _report(self, progress: Progress) -> None:
        self._message = progress.message


def follow_task(
    do: Callable[[ProgressCallback], T], show: Callable[[str], Outputs], failed: str
) -> Generator[Outputs, None, T | None]:
    """Run work in a background task and yield updates that show its progress.

    Args:
        show: what to fill the page with, given the newest progress message; empty until there is one.
        failed: what the person is told where the disk refuses, without the reason.

    Returns:
        What came of it. None: it failed, and the person was told why.
    """
    task = BackgroundTask(do)
    for text in task:
        yield show(text)
    try:
        return task.result()
    except ChatAppError as error:
        warn(error)
    except OSError as error:
        warn(f"{failed}: {error.strerror or error}.")
    return None


def count_conversations(progress: ProgressCallback, doing: str) -> ProgressCallback:
    """Wrap a callback so that a count of conversations becomes a message: "Reading: 3 conversations so far."."""

    def report(now: Progress) -> None:
        progress(replace(now, message=f"{doing}: {formatting.format_count(now.done, 'conversation')} so far."))

    return report


class TaskRow:
    """The row that shows the progress of a background task and a button that stops it. Hidden while none runs."""

    def draw(self, name: str) -> None:
        """Create the components in the current Gradio context. `name` begins their ids."""
        with gr.Row(visible=False, elem_classes=["work-row"]) as self.row:
            self.progress = gr.HTML("", elem_id=f"{name}-progress", apply_default_css=False)
            self.stop = gr.Button("Stop", variant="stop", size="sm", min_width=80, scale=0, elem_id=f"{name}-stop")

    @property
    def outputs(self) -> list[Any]:
        """What `show` and `hide` update."""
        return [self.row, self.progress]

    def show(self, text: str) -> Updates:
        """Show a progress message."""
        return {self.row: gr.Row(visible=True), self.progress: render_progress(text)}

    def hide(self) -> Updates:
        """Hide the row: no task is running."""
        return {self.row: gr.Row(visible=False), self.progress: ""}
