"""Tab-separated lines: a context and a reply, or one turn a column. Knows no files; quotes are ordinary characters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from chat_app.conversation import Conversation
from chat_app.reading.report import Located, Problem, Rejected
from chat_app.reading.source import MAX_LINE_MEGABYTES, NumberedLine
from chat_app.reading.texts import answered, cleaned, not_utf8, split_context

MAX_COLUMNS = 1_000

TWO_COLUMNS = "Write what is said, press the Tab key, then write the reply."

# A line is a header only if all its cells are such words, so that a conversation is never lost to this list.
CONTEXT_WORDS = frozenset(("context", "question", "prompt", "input", "instruction", "source", "query", "request"))
REPLY_WORDS = frozenset(("reply", "response", "answer", "completion", "output", "target"))
SPEAKER_WORDS = frozenset(("user", "human", "assistant", "bot", "chatbot", "gpt", "model"))
NUMBERED_WORDS = frozenset(("turn", "utterance", "message", "speaker"))  # "turn 1", "turn_2"


def conversations(lines: Iterable[NumberedLine], file: str) -> Iterator[Located | Problem]:
    """Every line as a conversation or a problem; empty lines and a header are passed over."""
    first, swapped = True, False
    for number, raw in lines:
        if raw == b"":
            continue
        try:
            cells = _cells(raw)
            if first and is_header(cells):
                swapped = _reply_comes_first(cells)
            else:
                yield Located(conversation(cells[::-1] if swapped and len(cells) == 2 else cells), number)
        except Rejected as rejected:
            yield Problem(file, number, rejected.reason, rejected.advice)
        first = False


def is_header(cells: list[str]) -> bool:
    """Whether the cells name columns ("context", "Reply", "turn 1") instead of saying something."""
    return len(cells) > 1 and all(_header_word(cell) for cell in cells)


def conversation(cells: list[str]) -> Conversation:
    """The last column is the assistant's reply; with two columns the first may hold several turns.

    Raises:
        Rejected: fewer than two columns, or an empty one.
    """
    # Spreadsheets fill short rows with empty cells up to the longest row.
    while len(cells) > 2 and not cells[-1].strip():
        cells = cells[:-1]
    if not any(cell.strip() for cell in cells):
        raise Rejected("This line has only spaces.", "Delete the line, or write a context and a reply.")
    if len(cells) < 2:
        raise Rejected("This line has 1 column; at least 2 are needed.", TWO_COLUMNS)
    if len(cells) == 2:
        return answered(split_context(cells[0]), cells[1])
    turns = [cleaned(cell, f"column {number}") for number, cell in enumerate(cells, start=1)]
    return Conversation.from_turns(turns, last="assistant")


def _cells(raw: bytes | None) -> list[str]:
    if raw is None:
        raise Rejected(f"This line is longer than {MAX_LINE_MEGABYTES} MB.", "Split it into several lines.")
    columns = raw.count(b"\t") + 1
    if columns > MAX_COLUMNS:
        raise Rejected(
            f"This line has {columns:,} columns; at most {MAX_COLUMNS:,} are read.", "Split it into several."
        )
    try:
        return raw.decode("utf-8").split("\t")
    except UnicodeDecodeError as error:
        raise not_utf8(error.start) from error


def _header_word(cell: str) -> str | None:
    """The known word in a cell, without an s at its end or a turn's number; None if the cell is something else."""
    word = cell.strip().casefold()
    if word in SPEAKER_WORDS:
        return word
    numbered = word.rstrip("0123456789 _-")
    if numbered in NUMBERED_WORDS:
        return numbered
    singular = "reply" if word == "replies" else word.removesuffix("s")
    return singular if singular in CONTEXT_WORDS or singular in REPLY_WORDS else None


def _reply_comes_first(cells: list[str]) -> bool:
    """A table with its columns named and the other way round would teach the model to ask instead of to answer."""
    names = [_header_word(cell) for cell in cells]
    return len(names) == 2 and names[0] in REPLY_WORDS and names[1] in CONTEXT_WORDS
