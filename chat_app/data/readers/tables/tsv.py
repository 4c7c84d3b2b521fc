"""The reader of tab-separated lines: a context and a reply, or one turn per column. Quotes are ordinary characters.

If the header names other columns, or the options give roles, the table is read by the roles of its columns.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from chat_app.conversation import Conversation
from chat_app.data.readers.options import TABLE_LAYOUTS, ReadingOptions
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.tables import column_guess, column_plan, columns, header_words, table_header, talk
from chat_app.data.readers.tables.cells import detect_kind
from chat_app.data.readers.tables.column_plan import Row
from chat_app.data.readers.tables.columns import MAX_COLUMNS
from chat_app.data.readers.text_source import MAX_LINE_MEGABYTES, NumberedLine
from chat_app.data.readers.turn_text import TURN_SEPARATOR, not_utf8_error
from chat_app.data.readers.types import Column, Located, Preview, Problem, RejectedError

TWO_COLUMNS = "Write what is said, press the Tab key, then write the reply."
OTHER_WIDTH = "Check its tabs: no text may stand in another column than in the other lines."
# So many columns are looked at to see whether somebody talks, and so large a share of the cells has to look like it.
MAX_LOOKED = 20
TALK_SHARE = 0.1
END_OF_TURN = TURN_SEPARATOR.strip()
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
        shown = self._preview("tsv", preview_columns(self.source.read_lines(), self.source.name, self.options))
        found = _split_header(self.source.read_lines(), self.source.name, self.options)
        return replace(shown, delimiter="\t", has_header=found.has_header)

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
    found = _split_header(lines, file, options)
    if found.names is not None:
        return columns.read_conversations(found.rows, found.names, file, options, need_reply=need_reply)
    return _read_plain(found, file, need_reply)


def preview_columns(
    lines: Iterable[NumberedLine], file: str, options: ReadingOptions | None = None
) -> tuple[Column, ...]:
    """The columns of tab-separated lines, also without a header.

    Raises:
        DataError: the options name a column that the table does not have.
    """
    options = options or ReadingOptions()
    found = _split_header(lines, file, options)
    sample = [row[1] for row in itertools.islice(found.rows, columns.SAMPLE_ROWS) if not isinstance(row, Problem)]
    names = found.names
    if names is None and found.header:
        names = [cell.strip() for cell in found.header]
    elif names is None:
        names = [""] * max((len(cells) for cells in sample), default=0)
        if len(names) > 1:  # The lines are read as they stand, whatever their cells look like.
            options = replace(options, layout="pairs" if len(names) == 2 else "turns")
    return columns.preview_columns(names, sample, options)


@dataclass(frozen=True)
class _Beginning:
    """The first lines: all rows below a header, the names of a table that is read by its columns (else None), the plain
    header, whether there is a header at all, and how many cells nearly all rows have."""

    rows: Iterator[Row | Problem]
    names: list[str] | None
    header: list[str]
    has_header: bool
    agreed: int


def _split_header(lines: Iterable[NumberedLine], file: str, options: ReadingOptions) -> _Beginning:
    rows = _read_rows(lines, file)
    first = list(itertools.islice(rows, columns.SAMPLE_ROWS))
    places = [place for place, row in enumerate(first) if not isinstance(row, Problem)]
    cells: list[list[str]] = [list(row[1]) for row in first if not isinstance(row, Problem)]
    place = _find_header(cells, options) if places and places[0] == 0 else -1
    top, below = (cells[place], cells[place + 1 :]) if place >= 0 else ([], cells)
    plain = place == 0 and is_header(top)
    if place >= 0:
        del first[: places[place] + 1]
    said = bool(options.columns) or options.layout in TABLE_LAYOUTS
    names: list[str] | None = None
    if place >= 0 and (said or not plain or "text" in columns.guess_columns(top, below).values()):
        names = [cell.strip() for cell in top]
    elif cells and not plain and (said or _is_no_talk(cells)):
        names = [""] * max(len(row) for row in cells)
    agreed = columns.find_agreed_width([], [_strip_row(row) for row in below])
    return _Beginning(itertools.chain(first, rows), names, top if plain else [], place >= 0, agreed)


def _find_header(cells: list[list[str]], options: ReadingOptions) -> int:
    """The row with the names of the columns; -1 if there is none."""
    if options.header != "automatic":
        return table_header.find_header(cells, options)
    if is_header(cells[0]) or _names_columns(cells[0], cells[1:], bool(options.columns)):
        return 0
    place = table_header.find_header(cells, options)
    return place if place > 0 or options.columns else -1


def _strip_row(row: Sequence[str]) -> Sequence[str]:
    """A row without the empty cells at its end, which spreadsheets fill in."""
    width = len(row)
    while width > 2 and not row[width - 1].strip():
        width -= 1
    return row[:width]


def _names_columns(top: list[str], below: list[list[str]], said: bool) -> bool:
    """Whether the first line is a header with columns that plain lines do not have."""
    if said:
        return table_header.is_header(top, below)
    known = [meaning for cell in top if (meaning := header_words.find_meaning(cell))]
    if len(known) < 2 or not table_header.is_header(top, below):
        return False
    return len(top) > 2 or not {"context", "reply", "turn", "user", "assistant"}.issuperset(known)


def _is_no_talk(cells: list[list[str]]) -> bool:
    """Whether plain lines hold what nobody says: numbers that count them, times, addresses, files, or only names.

    Their columns are then looked at as those of any other table.
    """
    width = min(map(len, cells))
    texts = [[row[position] for row in cells] for position in range(min(width, MAX_LOOKED))]
    kinds = [detect_kind(column) for column in texts]
    if width > 2 and kinds[0] == "running":
        return True
    if len(cells) < column_guess.FEWEST_ROWS or width < 2:
        return False
    if any(kind in column_guess.NEVER_SAID or kind == "running" for kind in kinds):
        return True
    if width > 2:
        everything = [cell for column in texts for cell in column]
        return "number" in kinds or talk.share_said(everything) < TALK_SHARE
    return kinds[0] == "number" or (kinds[1] == "number" and talk.share_said(texts[0]) < talk.SAID_SHARE)


def _read_plain(found: _Beginning, file: str, need_reply: bool) -> Iterator[Located | Problem]:
    swapped = _reply_comes_first(found.header)
    # Lines wider than the header hold one turn per column, as many as were said.
    agreed = 0 if 0 < len(found.header) < found.agreed else found.agreed
    for row in found.rows:
        if isinstance(row, Problem):
            yield row
            continue
        number, cells = row[0], list(row[1])
        if len(cells) != agreed and (reason := _explain_width(cells, agreed)):
            yield Problem(file, number, reason, OTHER_WIDTH)
            continue
        if found.header:
            cells = [cell[1:] if cell[:1] == "'" and DEFUSED.match(cell) else cell for cell in cells]
        try:
            parsed = parse_row(cells[::-1] if swapped and len(cells) == 2 else cells, need_reply=need_reply)
            yield Located(parsed, number, file)
        except RejectedError as rejected:
            yield Problem(file, number, rejected.reason, rejected.advice)


def _explain_width(cells: Sequence[str], agreed: int) -> str:
    """What is wrong with the number of cells of a line, beside lines that all have so many; empty if nothing is.

    This program's own tables hold wider lines among the others: of conversations in which somebody says EOS.
    """
    if agreed < 2 or not any(cell.strip() for cell in cells):
        return ""
    width = len(_strip_row(cells))
    if width > agreed and any(END_OF_TURN in cell for cell in cells):
        return ""
    return f"This line has {width} columns, but the others have {agreed}." if width not in (1, agreed) else ""


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
    return column_plan.build_from_turns(cells, need_reply=need_reply)


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
