"""The models and conversations that can be chosen on the Evaluate tab, and the thread in which one test at a time runs.

Knows no components. Rights are checked here, at every call.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from chat_app.conversation import Conversation
from chat_app.data.readers import has_text, iterate_conversations
from chat_app.data.source import DataSource, load_source
from chat_app.errors import ChatAppError, DataError, ModelError, RunError, TooLargeError
from chat_app.formatting import format_bytes
from chat_app.runs.run import Run
from chat_app.services import Services
from chat_app.system.progress import Progress, ProgressCallback
from chat_app.ui.components.background_task import BackgroundTask, count_conversations
from chat_app.ui.components.escape import describe_error
from chat_app.ui.models import model_choices
from chat_app.ui.visitor import Visitors

LOGGER = logging.getLogger(__name__)
T = TypeVar("T")
NOTHING, START = "", "the model it started from"
KEPT_ASIDE, OWN_FILE = "kept aside", "own file"
MAX_CONVERSATIONS = 2_000  # Measured on the page; the command line measures all.


@dataclass(frozen=True)
class Subject:
    """A model that is judged: what to load, and what to call it."""

    name: str
    title: str


class EvaluationSubjects:
    """Finds what a visitor has chosen, and runs tests one after the other.

    Args:
        services, visitors: whose models, and who calls.
    """

    def __init__(self, services: Services, visitors: Visitors):
        self.services, self.visitors = services, visitors
        # Two tests at the same time would be slower than one after the other, and need more memory.
        self._lock = threading.Lock()

    def list_models(self, visitor: str) -> list[tuple[str, str]]:
        """List (title, name) of the models that this visitor may evaluate, trained ones first."""
        if self.services.rules.is_shared:
            rows = model_choices.list_own_models(self.services, visitor)
        else:
            rows = model_choices.list_models(self.services, visitor)
        return sorted(rows, key=lambda row: self._run(row[1], visitor) is None)

    def get_subject(self, name: object, visitor: str) -> Subject:
        """Return a model by the name that the page sent.

        Raises:
            ModelError: it is not offered to this visitor.
        """
        for title, offered in self.list_models(visitor):
            if offered == name:
                loaded = self.services.models.current
                return Subject(loaded.name if name == model_choices.IN_USE and loaded else offered, title)
        raise ModelError("This model is not here.", advice="Choose one from the list.")

    def get_baseline(self, name: object, after: object, visitor: str) -> Subject | None:
        """Return the model to compare with: none, one of the list, or the base model of a run.

        Raises:
            ModelError, RunError: there is no such model.
        """
        if name in (NOTHING, None):
            return None
        if name != START:
            return self.get_subject(name, visitor)
        started = self.get_run(after, visitor).config().model
        named = next((title for title, offered in self.list_models(visitor) if offered == started), START)
        return Subject(started, named)

    def get_run(self, name: object, visitor: str) -> Run:
        """Return the run whose model was chosen.

        Raises:
            RunError: it is none, or not this visitor's.
        """
        found = self._run(name, visitor)
        if found is None:
            raise RunError("This model was not taught here.", advice="Choose one that was: “Taught: …”.")
        return found

    def is_run(self, name: object, visitor: str) -> bool:
        """Whether a model was trained here, by this visitor."""
        return self._run(name, visitor) is not None

    def has_kept_aside(self, name: object, visitor: str) -> bool:
        """Whether the run whose model was chosen has validation data."""
        run = self._run(name, visitor)
        return run is not None and has_text(run.data / "valid.jsonl")

    def _run(self, name: object, visitor: str) -> Run | None:
        try:
            return self.services.find_run(visitor, name) if isinstance(name, str) else None
        except RunError:
            return None

    def load_conversations(
        self, source: object, after: object, files: list[str] | None, visitor: str
    ) -> tuple[Callable[[ProgressCallback], Iterator[Conversation]], str]:
        """Return a function that reads the conversations to evaluate on, and their title. Nothing is read yet.

        Raises:
            DataError, RunError, TooLargeError: there are none.
        """
        if source == KEPT_ASIDE:
            kept = self.get_run(after, visitor).data / "valid.jsonl"
            if not has_text(kept):
                raise DataError(
                    "This model kept no conversations aside when it learned.", advice="Bring a file instead."
                )
            title = "conversations that it kept aside and did not learn"
            return lambda progress: iterate_conversations(kept, need_reply=True), title
        paths = [Path(file) for file in files or ()]
        if not paths:
            raise DataError("There is nothing to measure on yet.", advice="Bring a file of conversations.")
        for path in paths:
            if not path.is_file():
                raise DataError("The file is no longer here.", advice="Bring it again.")
            if path.stat().st_size > self.services.rules.upload_limit:
                raise TooLargeError(f"This file is larger than {format_bytes(self.services.rules.upload_limit)}.")
        wanted = DataSource(files=tuple(paths), names=tuple(path.name for path in paths))

        def read(progress: ProgressCallback) -> Iterator[Conversation]:
            return load_source(
                wanted, self.services.paths, progress=count_conversations(progress, "Reading")
            ).iterate_conversations()

        return read, f"conversations of {paths[0].name}" if len(paths) == 1 else f"conversations of {len(paths)} files"

    def start(self, do: Callable[[ProgressCallback], T]) -> BackgroundTask[T]:
        """Start a test in a thread. It waits until the tests before it have ended."""

        def wait_for_turn(progress: ProgressCallback) -> T:
            while not self._lock.acquire(timeout=0.5):
                progress(Progress("Another test is under way; this one waits for its turn."))
            try:
                return do(progress)
            finally:
                self._lock.release()

        return BackgroundTask(wait_for_turn)


def check_count(number: object, fewest: int, most: int, what: str) -> int:
    """Check a number that the page sent; the page's own limits are not relied on.

    Args:
        what: what there can be so many of, as in "questions can be asked".

    Raises:
        DataError: it is none, or there are too few or too many.
    """
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not fewest <= number <= most:
        raise DataError(f"{fewest} to {most} {what}.")
    return int(number)


def describe_failure(error: BaseException) -> str:
    """Describe in a sentence for the page why a test failed."""
    if isinstance(error, ChatAppError):
        return describe_error(error)
    LOGGER.error("a test on the Evaluate tab failed", exc_info=error)
    if isinstance(error, MemoryError):
        return "There is not enough memory for this model."
    return "This could not be done. The reason is in the log of this program."
