"""What the panels of the Evaluate tab have in common: their head, and the way from a press to a result on the page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import gradio as gr

from chat_app.errors import ChatAppError
from chat_app.system.progress import ProgressCallback
from chat_app.ui.components.background_task import TaskRow
from chat_app.ui.components.events import Updates
from chat_app.ui.components.notices import render_refusal
from chat_app.ui.evaluation.subjects import EvaluationSubjects, describe_failure


@dataclass(frozen=True)
class Choice:
    """What a visitor has chosen to judge, as the page sent it: nothing of it is checked yet.

    Attributes:
        after, before: names of the model and of the one to compare it with.
        source, files: which conversations to judge it by.
    """

    visitor: str
    after: str
    before: str
    source: str
    files: list[str] | None


class EvaluationPanel(ABC):
    """A way to judge a model.

    Args:
        subjects: finds what was chosen, and runs one test at a time.
        task_row: shows the progress of a test; all panels share it.

    Attributes:
        title, about: what stands on the panel's tab and at its head.
        start: the button that begins a test; drawn by `draw_controls`.
    """

    title: ClassVar[str]
    about: ClassVar[str]
    start: Any

    def __init__(self, subjects: EvaluationSubjects, task_row: TaskRow):
        self.subjects, self.task_row = subjects, task_row

    def draw(self) -> None:
        """Create the components in the current Gradio context."""
        gr.HTML(f'<p class="quiet">{self.about}</p>', apply_default_css=False)
        self.draw_controls()

    def connect(self, choice: list[Any], long: dict[str, Any]) -> Any:
        """Register the handlers, and return the event that Stop cancels.

        Args:
            choice: the components that hold the visitor's token and what a `Choice` holds.
            long: the settings of an event that takes long.
        """
        outputs = [*self.task_row.outputs, *self.results]
        return self.start.click(self.begin, [*choice, *self.settings], outputs, **long)

    def begin(
        self,
        request: gr.Request,
        token: str,
        after: str,
        before: str,
        source: str,
        files: list[str] | None,
        *settings: Any,
    ) -> Iterator[Updates]:
        """Judge what was chosen. Whatever happens, the page is ready again at the end, and says why it failed."""
        try:
            visitor = self.subjects.visitors.identify(token, request)
            task = self.subjects.start(self.prepare(Choice(visitor, after, before, source, files), *settings))
        except ChatAppError as error:
            yield {**self.task_row.hide(), **self.show_failure(render_refusal(describe_failure(error)))}
            return
        for text in task:
            yield self.task_row.show(text or "Beginning.")
        try:
            result = task.result()
        except Exception as error:  # The page's edge: an unknown error is logged, and the page gets a sentence.
            result = self.show_failure(render_refusal(describe_failure(error)))
        yield {**self.task_row.hide(), **result}

    @abstractmethod
    def draw_controls(self) -> None:
        """Create the components below the head."""

    @property
    @abstractmethod
    def settings(self) -> list[Any]:
        """The components whose values `prepare` is given after the choice."""

    @property
    @abstractmethod
    def results(self) -> list[Any]:
        """The components that a test updates."""

    @abstractmethod
    def prepare(self, choice: Choice, *settings: Any) -> Callable[[ProgressCallback], Updates]:
        """Check what the page sent, and return what does the test and gives the result as updates of the page.

        Raises:
            ChatAppError: it cannot be done.
        """

    @abstractmethod
    def show_failure(self, reason: str) -> Updates:
        """The updates of the page where there is no result; `reason` is a piece of the page."""
