"""The reader of tab-separated lines: a context and a reply, or one turn per column. Quotes are ordinary characters.

If the header names other columns, or the options give roles, the table is read by the roles of its columns.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from chat_app.conversation import Conversation
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.tables import columns, header_words
from chat_app.data.readers.tables.cells import detect_kind
from chat_app.data.readers.tables.columns import MAX_COLUMNS, Row
from chat_app.data.readers.text_source import MAX_LINE_MEGABYTES, NumberedLine
from chat_app.data.readers.turn_text import not_utf8_error
from chat_app.data.readers.types import Column, Located, Preview, Problem, RejectedError

TWO_COLUMNS = "Write what is said, press the Tab key, then write the reply."
TYPED_TAB = "Press the Tab key instead of writing the signs \\t."
NAMED = (
    "If this is a name before what is said, write User: and Assistant: instead, or press the Tab key before the reply."
)
NAME = re.compile(r"[^\W\d][\w.-]{0,20}(?: [^\W\d][\w.-]{0,20}){0,2}: ")

# A line is a header only if all its cells are such words, so that no conversation is taken for a header.
CONTEXT_WORDS = frozenset(("context", "question", "prompt", "input", "instruction", "source", "query", "request"))
REPLY_WORDS = frozenset(("reply", "response", "answer", "completion", "output", "target"))
SPEAKER_WORDS = frozenset(("user", "human", "assistant", "bot", "chatbot", "gpt", "model"))
NUMBERED_WORDS = frozenset(("turn", "utterance", "message", "speaker"))  # "turn 1", "turn_2"

# A cell with an apostrophe that keeps a spreadsheet from taking it for a formula.
DEFUSED = re.compile(r"'+[=+\-@\x00-\x1f]")


@dataclass(frozen=True)
class TsvReader(TextReader):
    """Reads tab-separated lines, and reports other lines as problems. It accepts any text file."""

    kind = "tsv"

    @classmethod
    def sniff(cls, file: InputFile) -> TsvReader:
        """A reader for any text."""
        return cls(file.source, file.options)

    def preview(self) -> Preview:
        """The columns."""
        return self._preview("tsv", preview_columns(self.source.read_lines(), self.source.name, self.options))

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations and the problems, line by line."""
        return read_conversations(self.source.read_lines(), self.source.name, self.options, need_reply=need_reply)


def read_conversations(
    lines: Iterable[NumberedLine], file: str, options: ReadingOptions | None = None, *, need_reply: bool = True
) -> Iterator[Located | Problem]:
    """Read each line as a conversation or a problem; empty lines and a header are skipped.

    Raises:
        DataError: the options name a column that the table does not have.
    """
    options = options or ReadingOptions()
    rows, names, header = _split_header(lines, file, options)
    if names is not None:
        return columns.read_conversations(rows, names, file, options, need_reply=need_reply)
    return _read_plain(rows, file, header, need_reply)


def preview_columns(
    lines: Iterable[NumberedLine], file: str, options: ReadingOptions | None = None
) -> tuple[Column, ...]:
    """The columns of tab-separated lines, also without a header.

    Raises:
        DataError: the options name a column that the table does not have.
    """
    options = options or ReadingOptions()
    rows, names, header = _split_header(lines, file, options)
    sample = [row[1] for row in itertools.islice(rows, columns.SAMPLE_ROWS) if not isinstance(row, Problem)]
    if names is None and header:
        names = [cell.strip() for cell in header]
    elif names is None:
        names = [""] * max((len(cells) for cells in sample), default=0)
    return columns.preview_columns(names, sample, options)


def _split_header(
    lines: Iterable[NumberedLine], file: str, options: ReadingOptions
) -> tuple[Iterator[Row | Problem], list[str] | None, list[str]]:
    """The rows below the header; the column names of a table that is read by roles, else None; and a plain header."""
    rows = _read_rows(lines, file)
    first = list(itertools.islice(rows, columns.SAMPLE_ROWS))
    places = [place for place, row in enumerate(first) if not isinstance(row, Problem)]
    cells: list[list[str]] = [list(row[1]) for row in first if not isinstance(row, Problem)]
    top, below = (cells[0], cells[1:]) if places and places[0] == 0 else ([], [])
    plain = is_header(top)
    named = plain or _names_columns(top, below, bool(options.columns))
    if named:
        del first[0]
    names: list[str] | None = None
    if named and (options.columns or not plain or "text" in columns.guess_columns(top, below).values()):
        names = [cell.strip() for cell in top]
    elif cells and not plain and (options.columns or _is_counted(cells)):
        names = [""] * max(len(row) for row in cells)
    return itertools.chain(first, rows), names, top if plain else []


def _names_columns(top: list[str], below: list[list[str]], said: bool) -> bool:
    """Whether the first line is a header with columns that plain lines do not have."""
    if said:
        return columns.is_header(top, below)
    known = [meaning for cell in top if (meaning := header_words.find_meaning(cell))]
    if len(known) < 2 or not columns.is_header(top, below):
        return False
    return len(top) > 2 or not {"context", "reply", "turn", "user", "assistant"}.issuperset(known)


def _is_counted(cells: list[list[str]]) -> bool:
    """Whether the first column only numbers the lines (1, 2, 3), and so has no turns."""
    return min(map(len, cells)) > 2 and detect_kind([row[0] for row in cells]) == "running"


def _read_plain(
    rows: Iterable[Row | Problem], file: str, header: list[str], need_reply: bool
) -> Iterator[Located | Problem]:
    swapped = _reply_comes_first(header)
    for row in rows:
        if isinstance(row, Problem):
            yield row
            continue
        number, cells = row[0], list(row[1])
        if header:
            cells = [cell[1:] if cell[:1] == "'" and DEFUSED.match(cell) else cell for cell in cells]
        try:
            found = parse_row(cells[::-1] if swapped and len(cells) == 2 else cells, need_reply=need_reply)
            yield Located(found, number, file)
        except RejectedError as rejected:
            yield Problem(file, number, rejected.reason, rejected.advice)


def is_header(cells: Sequence[str]) -> bool:
    """Whether the cells are a header ("context", "Reply", "turn 1")."""
    return len(cells) > 1 and all(_find_header_word(cell) for cell in cells)


def parse_row(cells: list[str], *, need_reply: bool = True) -> Conversation:
    """Parse a row whose last cell is the reply. With two cells the first is a context, which may have several turns.

    Raises:
        RejectedError: there are fewer than two cells, or an empty one.
    """
    if not any(cell.strip() for cell in cells):
        raise RejectedError("This line has only spaces.", "Delete the line, or write a context and a reply.")
    if len(cells) < 2:
        advice = TYPED_TAB if "\\t" in cells[0] else NAMED if NAME.match(cells[0]) else TWO_COLUMNS
        raise RejectedError("This line has 1 column; at least 2 are needed.", advice)
    return columns.build_from_turns(cells, need_reply=need_reply)


def _read_rows(lines: Iterable[NumberedLine], file: str) -> Iterator[Row | Problem]:
    for number, raw in lines:
        if raw == b"":
            continue
        try:
            yield number, _split_cells(raw)
        except RejectedError as rejected:
            yield Problem(file, number, rejected.reason, rejected.advice)


def _split_cells(raw: bytes | None) -> list[str]:
    if raw is None:
        raise RejectedError(f"This line is longer than {MAX_LINE_MEGABYTES} MB.", "Split it into several lines.")
    count = raw.count(b"\t") + 1
    if count > MAX_COLUMNS:
        raise RejectedError(
            f"This line has {count:,} columns; at most {MAX_COLUMNS:,} are read.", "Split it into several."
        )
    try:
        return raw.decode("utf-8").split("\t")
    except UnicodeDecodeError as error:
        raise not_utf8_error(error.start) from error


def _find_header_word(cell: str) -> str | None:
    """The known header word in a cell, without a plural s or a number; None for other cells."""
    word = cell.strip().casefold()
    if word in SPEAKER_WORDS:
        return word
    numbered = word.rstrip("0123456789 _-")
    if numbered in NUMBERED_WORDS:
        return numbered
    singular = "reply" if word == "replies" else word.removesuffix("s")
    return singular if singular in CONTEXT_WORDS or singular in REPLY_WORDS else None


def _reply_comes_first(cells: Sequence[str]) -> bool:
    """Whether a header has the reply before the context. Read unswapped, it would train the model to ask."""
    names = [_find_header_word(cell) for cell in cells]
    return len(names) == 2 and names[0] in REPLY_WORDS and names[1] in CONTEXT_WORDS
