"""A lenient parser of rows of delimited text.

Unlike the csv module it accepts cells of any length, quotes escaped by a backslash, and quotes that turn out to be
ordinary characters; and it reports an unclosed quote instead of reading on to the end of the file.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from chat_app.data.readers.text_source import MAX_LINE_BYTES

# The most lines of a quoted cell; beyond them its closing quote is assumed to be missing.
MAX_ROW_LINES = 1_000


@dataclass(frozen=True)
class Dialect:
    """The format of a delimited text.

    `backslash`: a quote inside quotes is written \\" and not "". `skip`: lines before the table. `quote`: the sign
    around texts that hold the delimiter.
    """

    delimiter: str
    width: int
    backslash: bool = False
    skip: int = 0
    quote: str = '"'


@dataclass(frozen=True)
class Scan:
    """The result of parsing a row.

    Attributes:
        outcome: "row"; "open" if the lines end inside quotes; "unclosed" if the closing quote is missing.
        cells: the cells of a row.
        lines: the number of lines of a row.
        odd: whether a cell begins with a quote that is an ordinary character.
    """

    outcome: Literal["row", "open", "unclosed"]
    cells: list[str] = field(default_factory=list)
    lines: int = 0
    odd: bool = False


class ScannedRows:
    """A replacement of csv.reader that uses `scan_row`: an iterator over rows, with the lines read as `line_num`."""

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
    delimiter, quote = dialect.delimiter, dialect.quote
    line = next(lines).removesuffix("\n")
    cells: list[str] = []
    used, size, position, odd = 1, len(line), 0, False
    while True:
        start = position
        while line.startswith(" ", start) and delimiter != " ":
            start += 1
        if not line.startswith(quote, start):
            cell, position = _scan_plain_cell(line, position, dialect)
            cells.append(cell)
        else:
            parts: list[str] = []
            first, at = used, start + 1
            while (end := _find_closing_quote(line, at, dialect)) < 0:
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
                cells.append(_unescape("\n".join(parts), dialect))
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
    """An unquoted cell, and the position of the next one (beyond the end of the line if there is none)."""
    end = line.find(dialect.delimiter, position)
    while dialect.backslash and end > position and line[end - 1] == "\\":
        end = line.find(dialect.delimiter, end + 1)
    end = len(line) if end < 0 else end
    cell = line[position:end]
    if dialect.backslash:
        cell = cell.replace("\\" + dialect.delimiter, dialect.delimiter).replace("\\" + dialect.quote, dialect.quote)
    return cell, end + 1


def _find_closing_quote(line: str, at: int, dialect: Dialect) -> int:
    """Where the quote is that ends a cell; -1 if not in this line."""
    while (end := line.find(dialect.quote, at)) >= 0:
        if dialect.backslash:
            start = end
            while start > at and line[start - 1] == "\\":
                start -= 1
            if (end - start) % 2 == 0:
                return end
            at = end + 1
        elif line.startswith(dialect.quote, end + 1):
            at = end + 2
        else:
            return end
    return -1


def _unescape(text: str, dialect: Dialect) -> str:
    quote = dialect.quote
    if not dialect.backslash:
        return text.replace(quote * 2, quote)
    pieces = text.split("\\\\")
    return "\\".join(piece.replace("\\" + quote, quote) for piece in pieces)
