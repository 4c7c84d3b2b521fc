"""What reading a file gives: conversations with their lines, and problems. Knows nothing of how a file is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from chat_app.conversation import Conversation
from chat_app.data.readers.options import ColumnRole

Kind = Literal[
    "tsv", "csv", "xlsx", "parquet", "jsonl", "json", "marked", "dialogpt", "dailydialog", "empathetic", "personachat",
    "blended", "whatsapp", "telegram", "discord", "slack", "text", "hub",
]  # fmt: skip
Part = Literal["train", "valid", "test"]

LONGEST_QUOTE = 40


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was left out, why, and what to do about it.

    `line` counts from 1. In a file that is one JSON array it is the number of the item.
    """

    file: str
    line: int | None
    reason: str
    advice: str

    def sentence(self) -> str:
        """The whole on one line: file, line, reason, advice."""
        where = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{where}: {self.reason} {self.advice}".rstrip()


@dataclass(frozen=True, slots=True)
class Located:
    """A conversation and where it stands: the file as the person knows it, and the line, row or item in it.

    `part` is what the publisher of a data set meant it for.
    """

    conversation: Conversation
    line: int
    file: str = ""
    part: Part = "train"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: what it is called, what is guessed or was said about it, and a few of its cells."""

    name: str
    role: ColumnRole
    sample: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Speaker:
    """Somebody in a chat export, and how many messages are theirs."""

    name: str
    messages: int


@dataclass(frozen=True, slots=True)
class Preview:
    """The kind of a file and what a person can choose about it, known before the file is read.

    Attributes:
        file: the file's name; inside an archive "archive.zip/name".
        kind: the kind that was detected.
        encoding: of a text; empty for a binary file.
        columns: of a table, else empty.
        speakers: of a chat export, those with the most messages first, else empty.
        bot: the speaker whose messages become the assistant's.
    """

    file: str
    kind: Kind
    encoding: str = ""
    columns: tuple[Column, ...] = ()
    speakers: tuple[Speaker, ...] = ()
    bot: str = ""


@dataclass(frozen=True)
class Reading:
    """All that was read.

    `lines[i]` is the line of `conversations[i]`. `problems` holds the first of them only, where there are very many;
    `problems_total` counts them all. `encoding` is how the text was stored ("utf-8", "utf-8-sig", "utf-16-le",
    "cp1252").
    """

    conversations: list[Conversation]
    problems: list[Problem]
    lines: list[int]
    kind: Kind
    encoding: str
    problems_total: int = 0

    @property
    def turns(self) -> int:
        """The number of turns of all the conversations, system texts not counted."""
        return sum(len(conversation.turns) for conversation in self.conversations)

    def iterate_located(self) -> Iterator[Located]:
        """The conversations with their lines."""
        return map(Located, self.conversations, self.lines)

    def iterate_problems(self) -> Iterator[Problem]:
        """The problems."""
        return iter(self.problems)


class ConversationSource(Protocol):
    """Conversations that can be iterated over again and again, and the problems met when they were read."""

    def iterate_located(self) -> Iterator[Located]:
        """The conversations with their places, each time from the beginning."""
        ...

    def iterate_problems(self) -> Iterator[Problem]:
        """A problem for everything that was left out."""
        ...


class RejectedError(Exception):
    """A line that cannot be used, before it is known which line; inside this package it becomes a Problem."""

    def __init__(self, reason: str, advice: str):
        self.reason, self.advice = reason, advice
        super().__init__(reason)


def explain_not_opened(error: OSError) -> RejectedError:
    """The complaint about a file that is there and cannot be opened."""
    if isinstance(error, PermissionError):
        return RejectedError("Reading this file is not allowed.", "Allow it, or copy the file to a folder of your own.")
    if isinstance(error, FileNotFoundError):
        return RejectedError("The file is no longer there.", "It was moved or deleted: give it again.")
    return RejectedError("The file cannot be opened.", "Copy it to another folder, and give the copy.")


def make_printable(text: str) -> str:
    """A name as it may stand in a message: on one line, and with nothing that a terminal would obey."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def quote_text(text: str) -> str:
    """A piece of a file as it may stand inside a sentence: short, in quotes, on one line."""
    shown = make_printable(text[:LONGEST_QUOTE])
    return f'"{shown}…"' if len(text) > LONGEST_QUOTE else f'"{shown}"'
