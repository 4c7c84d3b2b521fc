"""Replies quoted from the list of questions and answers that a model was taught, in front of the model.

A shop or an office wants its own sentence where a question is nearly one of its list. `QuotingBackend` quotes it there
and asks the model elsewhere, or says that it does not know.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from chat_app.config.server import QuoteMode
from chat_app.conversation import Conversation
from chat_app.data.answer_list import AnswerList
from chat_app.data.readers import has_text, iterate_conversations
from chat_app.errors import ChatAppError, RunError
from chat_app.inference.backend import ModelDescription, ReplyBackend, ReplyEnd, ReplyEvent, ReplyRequest, TextDelta
from chat_app.runs.run import Run, open_run, split_name

NOT_KNOWN = "I'm sorry, I don't know that."
MOST_LISTS = 4
MOST_BYTES = 32 * 2**20  # Of conversations: a list of answers is small, and is indexed while a person waits.
_FILES = ("train.jsonl", "valid.jsonl")


@dataclass(frozen=True)
class QuotingBackend:
    """A model behind the list that it was taught: a `ReplyBackend`.

    Attributes:
        model: writes what is not quoted.
        answers: the list.
        mode: "sure" lets the model write where no reply is sure; "only" says that it is not known.
    """

    model: ReplyBackend
    answers: AnswerList
    mode: QuoteMode

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.name

    @property
    def description(self) -> ModelDescription:
        """The model's."""
        return self.model.description

    def connect(self) -> None:
        """Make sure that the model can reply."""
        self.model.connect()

    def stream(
        self, request: ReplyRequest, cancel_event: threading.Event | None = None
    ) -> Generator[ReplyEvent, None, None]:
        """The reply, as `ReplyBackend.stream` describes it. A quoted one comes whole, whatever the sampling says."""
        turn = request.conversation.turns[-1]
        if self.mode == "off" or turn.role != "user" or request.prefix:
            yield from self.model.stream(request, cancel_event)
            return
        started = time.perf_counter()
        sure = self.answers.find_sure(turn.text)
        if sure is None and self.mode == "sure":
            yield from self.model.stream(request, cancel_event)
            return
        text, quoted = (NOT_KNOWN, None) if sure is None else (sure.reply, sure.question)
        yield TextDelta(text)
        seconds = time.perf_counter() - started
        yield ReplyEnd(text, "end", 0, 0, self.description.window, seconds, seconds, quoted=quoted)

    def close(self) -> None:
        """End the model."""
        self.model.close()


class AnswerLists:
    """The lists of the runs of a home, each read when it is first asked for.

    Args:
        runs: the folder of all runs.
    """

    def __init__(self, runs: Path):
        self._runs = runs
        self._lock = threading.Lock()
        self._read: OrderedDict[tuple[str, int, int], AnswerList | None] = OrderedDict()

    def has(self, model: str) -> bool:
        """Whether a model was trained here on conversations, few enough for a list. Reads no conversation."""
        run = self._find_run(model)
        return run is not None and 0 < _measure(run)[1] <= MOST_BYTES

    def find(self, model: str) -> AnswerList | None:
        """The list that a model was taught; None where it was not trained here, or what it learned is no list."""
        run = self._find_run(model)
        if run is None:
            return None
        newest, size = _measure(run)
        if not 0 < size <= MOST_BYTES:
            return None
        key = (run.id, newest, size)
        with self._lock:
            if key not in self._read:
                self._read[key] = _read_list(run)
                while len(self._read) > MOST_LISTS:
                    self._read.popitem(last=False)
            self._read.move_to_end(key)
            return self._read[key]

    def _find_run(self, model: str) -> Run | None:
        try:
            return open_run(self._runs, split_name(model)[0])  # A model may be named by the folder of its run.
        except (RunError, ValueError, OSError):
            return None


def _measure(run: Run) -> tuple[int, int]:
    """When the conversations of a run were last changed, in nanoseconds, and how many bytes they have."""
    found = [(run.data / name).stat() for name in _FILES if (run.data / name).is_file()]
    return max((one.st_mtime_ns for one in found), default=0), sum(one.st_size for one in found)


def _read_list(run: Run) -> AnswerList | None:
    try:
        return AnswerList.of(_read_conversations(run))
    except (ChatAppError, OSError):
        return None


def _read_conversations(run: Run) -> Iterator[Conversation]:
    """All conversations of a run: those that were kept aside belong to the list, too."""
    for name in _FILES:
        if has_text(run.data / name):
            yield from iterate_conversations(run.data / name)
