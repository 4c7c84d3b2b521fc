"""A chat as lines of text -> messages, for all programs that begin a message with a line and may go on below it.

A program is described by what it makes of one line. Knows no program's layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from chat_app.data.readers.chat_exports.chat_reader import ChatReader
from chat_app.data.readers.chat_exports.message_draft import MessageDraft
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.text_source import Source, number_lines, read_beginning
from chat_app.data.readers.turn_text import decode_line
from chat_app.data.readers.types import Kind, Problem, RejectedError

SAMPLE_LINES = 400
SPLIT = "Split it into several lines."


@dataclass(frozen=True, slots=True)
class Begun:
    """A line that begins a message, or, without an author, a line that ends the one before and says nothing.

    Attributes:
        author: who writes; empty for notices, dates and the like.
        text: what stands on this line of what is said.
        time: seconds since 1970, or since the beginning of the file; None if the line shows no time.
        by_bot: the line itself says that a program wrote it.
        parts: begins another conversation.
    """

    author: str = ""
    text: str = ""
    time: float | None = None
    by_bot: bool = False
    parts: bool = False


class LineParser(Protocol):
    """What one program makes of its lines. It may remember what stood above (the day, whose message is open)."""

    def parse(self, line: str) -> Begun | None:
        """What a line begins; None for a line that goes on with what is open."""
        ...

    def clean(self, text: str) -> str:
        """The text that the author wrote, of a whole message; empty if only the program wrote (a picture, a deleted
        message)."""
        ...


def read_log(source: Source, begin: Callable[[], LineParser]) -> Iterator[ChatMessage | Problem]:
    """The messages of a file in their order.

    Args:
        begin: makes the parser of one pass.
    """
    parser = begin()
    draft: MessageDraft | None = None
    chat = 0

    def clean(text: str) -> str:
        return parser.clean(text.strip())

    for number, raw in source.read_lines():
        try:
            line = decode_line(raw, SPLIT)
        except RejectedError as rejected:
            # A text with a hole in it is no example: the message is left out as a whole.
            draft = None
            yield Problem(source.name, number, rejected.reason, rejected.advice)
            continue
        begun = parser.parse(line)
        if begun is None:
            if draft is not None:
                draft.add(line)
            continue
        if draft is not None and (message := draft.finish(source.name, clean)):
            yield message
        chat += begun.parts
        draft = None
        if begun.author:
            draft = MessageDraft(begun.time, begun.author, number, str(chat), begun.by_bot)
            draft.add(begun.text)
    if draft is not None and (message := draft.finish(source.name, clean)):
        yield message


def read_sample(source: Source) -> list[str]:
    """The first lines of a file, also the empty ones; the last may be missing its end and is left out then."""
    head, more = read_beginning(source)
    lines = [(raw or b"").decode("utf-8", "replace") for _, raw in number_lines([head])]
    if more and len(lines) > 1:
        lines.pop()
    return lines[:SAMPLE_LINES]


AnyLineLogReader = TypeVar("AnyLineLogReader", bound="LineLogReader")


def sample_lines(file: InputFile) -> list[str]:
    """The same of a file that is being recognised, read once for all readers."""
    return file.once(_read_sample_of)


def _read_sample_of(file: InputFile) -> list[str]:
    return read_sample(file.source)


class LineLogReader(ChatReader):
    """A base for readers of chats in lines."""

    @classmethod
    def open_log(
        cls: type[AnyLineLogReader], kind: Kind, file: InputFile, begin: Callable[[], LineParser]
    ) -> AnyLineLogReader:
        """A reader of a file that is known to be of this kind."""
        source = file.source
        return cls.survey(kind, file.name, source.encoding, file.options, partial(read_log, source, begin))
