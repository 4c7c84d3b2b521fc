"""The results of reading: located conversations, problems and previews; and the interface of conversation sources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from chat_app.conversation import Conversation
from chat_app.data.readers.options import ColumnRole

Kind = Literal[
    "tsv", "csv", "xlsx", "parquet", "jsonl", "json", "marked", "dialogpt", "dailydialog", "empathetic", "personachat",
    "blended", "whatsapp", "telegram", "discord", "slack", "messenger", "line", "kakaotalk", "signal", "imessage",
    "sms", "google_chat", "skype", "irc", "names", "subtitles", "meeting", "chatgpt", "claude", "sillytavern",
    "oobabooga", "intents", "rasa", "chatterbot", "aiml", "dialogflow", "bot_framework", "eos_lines", "cornell",
    "parlai", "oasst", "multiwoz", "schema_guided", "squad", "text", "hub",
]  # fmt: skip
Part = Literal["train", "valid", "test"]

LONGEST_QUOTE = 40


@dataclass(frozen=True, slots=True)
class Problem:
    """A line, item or file that was left out, and why.

    Attributes:
        file: the name of the file, as the user knows it.
        line: the line from 1, or the number of the item in a JSON array; None for the whole file.
        reason: what is wrong.
        advice: what to do about it.
    """

    file: str
    line: int | None
    reason: str
    advice: str

    def sentence(self) -> str:
        """The problem as one line of text: file, line, reason, advice."""
        where = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{where}: {self.reason} {self.advice}".rstrip()


@dataclass(frozen=True, slots=True)
class Note(Problem):
    """Something that a person should look at, though nothing was left out by mistake: a guess, or what is not learned.

    It comes among the problems of a file, and is counted apart from them.
    """


@dataclass(frozen=True, slots=True)
class Located:
    """A conversation and its origin.

    Attributes:
        conversation: the conversation.
        line: the line, row or item in the file, from 1.
        file: the name of the file, as the user knows it.
        part: the part of the data set that it belongs to.
    """

    conversation: Conversation
    line: int
    file: str = ""
    part: Part = "train"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: its name, or its number from 1.
        role: guessed, or from the options.
        sample: its first cells.
    """

    name: str
    role: ColumnRole
    sample: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Speaker:
    """A speaker in a chat export, and the number of their messages."""

    name: str
    messages: int


@dataclass(frozen=True, slots=True)
class Preview:
    """The kind of a file and what a user can choose about it, known before the file is read.

    Attributes:
        file: the file's name; inside an archive "archive.zip/name".
        kind: the kind that was detected.
        encoding: of a text file; empty for a binary file.
        columns: the columns of a table, else empty.
        speakers: the speakers of a chat export, those with the most messages first, else empty.
        bot: the speaker whose messages become the assistant's.
        delimiter: what separates the cells of a table of text; else empty.
        has_header: whether the first row of a table of text names its columns; None for what has no rows.
    """

    file: str
    kind: Kind
    encoding: str = ""
    columns: tuple[Column, ...] = ()
    speakers: tuple[Speaker, ...] = ()
    bot: str = ""
    delimiter: str = ""
    has_header: bool | None = None


@dataclass(frozen=True)
class Reading:
    """A file that was read into memory.

    Attributes:
        conversations: the conversations.
        problems: the problems, up to a limit.
        lines: `lines[i]` is the line of `conversations[i]`.
        kind: the kind of the file.
        encoding: of the text, such as "utf-8", "utf-8-sig", "utf-16-le" or "cp1252".
        problems_total: the number of all problems.
        notes: what the person should look at, though nothing is wrong.
    """

    conversations: list[Conversation]
    problems: list[Problem]
    lines: list[int]
    kind: Kind
    encoding: str
    problems_total: int = 0
    notes: tuple[Note, ...] = ()

    @property
    def turns(self) -> int:
        """The number of turns of all conversations, without system texts."""
        return sum(len(conversation.turns) for conversation in self.conversations)

    def iterate_located(self) -> Iterator[Located]:
        """The conversations with their lines."""
        return map(Located, self.conversations, self.lines)

    def iterate_problems(self) -> Iterator[Problem]:
        """The problems."""
        return iter(self.problems)


class ConversationSource(Protocol):
    """Conversations that can be iterated over repeatedly, and the problems of reading them."""

    def iterate_located(self) -> Iterator[Located]:
        """The conversations with their origins, on each call from the beginning."""
        ...

    def iterate_problems(self) -> Iterator[Problem]:
        """A problem for each line, item or file that was left out."""
        ...


class RejectedError(Exception):
    """A line or item that cannot be used. Inside this package it becomes a Problem with its file and line.

    Args:
        reason: what is wrong.
        advice: what to do about it.
    """

    def __init__(self, reason: str, advice: str):
        self.reason, self.advice = reason, advice
        super().__init__(reason)


def explain_not_opened(error: OSError) -> RejectedError:
    """The reason and the advice for a file that exists and cannot be opened."""
    if isinstance(error, PermissionError):
        return RejectedError("Reading this file is not allowed.", "Allow it, or copy the file to a folder of your own.")
    if isinstance(error, FileNotFoundError):
        return RejectedError("The file is no longer there.", "It was moved or deleted: give it again.")
    return RejectedError("The file cannot be opened.", "Copy it to another folder, and give the copy.")


def make_printable(text: str) -> str:
    """Replace line feeds and control characters, which a terminal would interpret, by question marks."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def quote_text(text: str) -> str:
    """Quote a text from a file for a sentence: in quotes, on one line, shortened to 40 characters."""
    shown = make_printable(text[:LONGEST_QUOTE])
    return f'"{shown}…"' if len(text) > LONGEST_QUOTE else f'"{shown}"'
