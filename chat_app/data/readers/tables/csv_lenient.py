"""One row of a delimited text, read with more patience than the csv module has. Knows quotes; knows no files.

It takes cells of any length, quotes written with a backslash, and quotes that turn out to be ordinary characters; and
it says when a quote is not closed instead of reading on to the end of the file.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from chat_app.data.readers.text_source import MAX_LINE_BYTES

# A text in quotes may have so many lines; with more, its closing quote is missing.
MAX_ROW_LINES = 1_000


@dataclass(frozen=True)
class Dialect:
    """How the cells of a table of text are separated, and how many a row usually has.

    `backslash`: a quote inside quotes is written \\" and not "". `skip`: lines before the table.
    """

    delimiter: str
    width: int
    backslash: bool = False
    skip: int = 0


@dataclass(frozen=True)
class Scan:
    """A row, how many lines it has; or "open" where the lines end inside quotes, "unclosed" where no end is sensible.

    `odd`: a quoted cell was none after all.
    """

    outcome: Literal["row", "open", "unclosed"]
    cells: list[str] = field(default_factory=list)
    lines: int = 0
    odd: bool = False


class ScannedRows:
    """What csv.reader is, by `scan_row`: rows, and `line_num`, the number of lines that were read."""

    def __init__(self, lines: Iterator[str], dialect: Dialect):
        self.lines, self.dialect, self.line_num = lines, dialect, 0

    def __iter__(self) -> ScannedRows:
        return self

    def __next__(self) -> list[str]:
        first = next(self.lines)
        if first == "\n":
            self.line_num += 1
            return []
        scan = scan_row(_chain(first, self.lines), self.dialect)
        if scan.outcome != "row":
            raise csv.Error(scan.outcome)
        self.line_num += scan.lines
        return scan.cells


def _chain(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def scan_row(lines: Iterator[str], dialect: Dialect) -> Scan:
    """The row that begins with the first of the lines. Every line has its end."""
    delimiter = dialect.delimiter
    line = next(lines).removesuffix("\n")
    cells: list[str] = []
    used, size, position, odd = 1, len(line), 0, False
    while True:
        start = position
        while line.startswith(" ", start) and delimiter != " ":
            start += 1
        if not line.startswith('"', start):
            cell, position = _scan_plain_cell(line, position, dialect)
            cells.append(cell)
        else:
            parts: list[str] = []
            first, at = used, start + 1
            while (end := _find_closing_quote(line, at, dialect.backslash)) < 0:
                parts.append(line[at:])
                following = next(lines, None)
                if following is None:
                    return Scan("open")
                line, at = following.removesuffix("\n"), 0
                used, size = used + 1, size + len(following)
                if used > MAX_ROW_LINES or size > MAX_LINE_BYTES:
                    return Scan("unclosed")
            parts.append(line[at:end])
            rest = line.find(delimiter, end + 1)
            rest = len(line) if rest < 0 else rest
            if not line[end + 1 : rest].strip(" "):
                cells.append(_unescape("\n".join(parts), dialect.backslash))
                position = rest + 1
            elif used > first:
                return Scan("unclosed")
            else:
                cell, position = _scan_plain_cell(line, position, dialect)
                cells.append(cell)
                odd = True
        if position > len(line):
            return Scan("row", cells, used, odd)


def _scan_plain_cell(line: str, position: int, dialect: Dialect) -> tuple[str, int]:
    """A cell without quotes, and where the next one begins (behind the end if there is none)."""
    end = line.find(dialect.delimiter, position)
    while dialect.backslash and end > position and line[end - 1] == "\\":
        end = line.find(dialect.delimiter, end + 1)
    end = len(line) if end < 0 else end
    cell = line[position:end]
    if dialect.backslash:
        cell = cell.replace("\\" + dialect.delimiter, dialect.delimiter).replace('\\"', '"')
    return cell, end + 1


def _find_closing_quote(line: str, at: int, backslash: bool) -> int:
    """Where the quote is that ends a cell; -1 if not in this line."""
    while (end := line.find('"', at)) >= 0:
        if backslash:
            start = end
            while start > at and line[start - 1] == "\\":
                start -= 1
            if (end - start) % 2 == 0:
                return end
            at = end + 1
        elif line.startswith('"', end + 1):
            at = end + 2
        else:
            return end
    return -1


def _unescape(text: str, backslash: bool) -> str:
    if not backslash:
        return text.replace('""', '"')
    pieces = text.split("\\\\")
    return "\\".join(piece.replace('\\"', '"') for piece in pieces)
