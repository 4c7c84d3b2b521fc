"""The reader of CSV and other delimited text with quoting, which recovers from broken quotes.

Tab-separated lines, where quotes are ordinary characters, are read in `tsv`.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from chat_app.data.readers.detect_csv import detect_dialect
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.tables import columns
from chat_app.data.readers.tables.column_plan import Row
from chat_app.data.readers.tables.columns import MAX_COLUMNS
from chat_app.data.readers.tables.csv_lenient import Dialect, Scan, ScannedRows, scan_row
from chat_app.data.readers.tables.table_header import find_header
from chat_app.data.readers.text_source import MAX_LINE_MEGABYTES, NumberedLine, Source
from chat_app.data.readers.turn_text import not_utf8_error
from chat_app.data.readers.types import Column, Kind, Located, Preview, Problem

BATCH_LINES, BATCH_BYTES = 512, 1 << 20
OPEN_QUOTE = "A quote is opened in this row and not closed."
CLOSE_QUOTE = 'Close it with ", or write a quote inside a text twice.'


@dataclass(frozen=True)
class CsvReader(TextReader):
    """Reads a delimited table.

    Attributes:
        dialect: the delimiter and the quoting.
    """

    kind = "csv"
    dialect: Dialect

    @classmethod
    def sniff(cls, file: InputFile) -> CsvReader | None:
        """A reader if the first lines are rows of a table with one of the known delimiters."""
        dialect = detect_dialect(file.source, file.options)
        return None if dialect is None else cls(file.source, file.options, dialect)

    def preview(self) -> Preview:
        """The columns."""
        kind: Kind = "tsv" if self.dialect.delimiter == "\t" else "csv"
        names, _ = _split_header(self.source, self.dialect, self.options)
        shown = self._preview(kind, preview_columns(self.source, self.dialect, self.options))
        return replace(shown, delimiter=self.dialect.delimiter if self.dialect.width > 1 else "", has_header=any(names))

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations and the problems, row by row."""
        return read_conversations(self.source, self.dialect, self.options, need_reply=need_reply)


def read_conversations(
    source: Source, dialect: Dialect, options: ReadingOptions | None = None, *, need_reply: bool = True
) -> Iterator[Located | Problem]:
    """Read the conversations of a delimited file. A conversation's line is the one where its row starts.

    Raises:
        DataError: no column holds conversations, or the options name a column that the table does not have.
    """
    names, items = _split_header(source, dialect, options or ReadingOptions())
    return columns.read_conversations(items, names, source.name, options, need_reply=need_reply)


def preview_columns(source: Source, dialect: Dialect, options: ReadingOptions | None = None) -> tuple[Column, ...]:
    """The columns of a delimited file."""
    options = options or ReadingOptions()
    names, items = _split_header(source, dialect, options)
    first = [item[1] for item in itertools.islice(items, columns.SAMPLE_ROWS) if not isinstance(item, Problem)]
    return columns.preview_columns(names, first, options)


def _split_header(
    source: Source, dialect: Dialect, options: ReadingOptions
) -> tuple[list[str], Iterator[Row | Problem]]:
    """The names of the columns ("" where there is no header), and the rows below them."""
    items = read_rows(source.read_lines(), source.name, dialect)
    first = list(itertools.islice(items, columns.SAMPLE_ROWS))
    found = [position for position, item in enumerate(first) if not isinstance(item, Problem)]
    rows = [item[1] for item in first if not isinstance(item, Problem)]
    place = find_header(rows, options)
    if place < 0:
        return [""] * dialect.width, itertools.chain(first, items)
    names, below = [str(cell).strip() for cell in rows[place]], rows[place + 1 :]
    while len(names) > 1 and not names[-1] and all(len(row) < len(names) or not row[-1] for row in below):
        names.pop()
    return names, itertools.chain(first[found[place] + 1 :], items)


def read_rows(lines: Iterator[NumberedLine], file: str, dialect: Dialect) -> Iterator[Row | Problem]:
    """Parse the rows; empty lines are skipped. A row that cannot be parsed does not affect those after it."""
    text: list[str] = []
    start, ended = 1, False
    while not ended or text:
        problems: list[Problem] = []
        ended = _fill_batch(lines, text, problems, file, dialect.skip)
        position = 0
        for position, item in _parse_rows(text, start, file, dialect, ended):
            while problems and problems[0].line is not None and problems[0].line < start + position:
                yield problems.pop(0)
            if item is not None:
                yield item
        yield from problems
        start += position
        del text[:position]


def _fill_batch(lines: Iterator[NumberedLine], text: list[str], problems: list[Problem], file: str, skip: int) -> bool:
    """Add the next lines to `text`, with line feeds; undecodable lines are added empty. Returns True at the end."""
    raw: list[bytes] = []
    size = 0
    ended = True
    for number, line in lines:
        if line is None:
            reason = f"This line is longer than {MAX_LINE_MEGABYTES} MB."
            problems.append(Problem(file, number, reason, "Split it into several lines."))
            line = b""
        elif not line.isascii():
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                rejected = not_utf8_error(error.start)
                problems.append(Problem(file, number, rejected.reason, rejected.advice))
                line = b""
        raw.append(line if number > skip else b"")
        size += len(line)
        if len(raw) >= BATCH_LINES or size >= BATCH_BYTES:
            ended = False
            break
    raw.append(b"")
    text += io.StringIO(b"\n".join(raw).decode("utf-8"), newline="\n").readlines()
    return ended


def _parse_rows(
    text: list[str], start: int, file: str, dialect: Dialect, ended: bool
) -> Iterator[tuple[int, Row | Problem | None]]:
    """(number of lines consumed, a row or a problem). Stops before a row whose last line is not in `text` yet."""
    done = 0
    while done < len(text):
        reader, before = _make_reader(text, done, dialect), done
        try:
            for cells in reader:
                used = before + reader.line_num - done
                if used > 1 and _has_swallowed_rows(text, done, used, len(cells), dialect):
                    break
                line = start + done
                done += used
                yield done, _check_row(cells, line, file) if cells else None
            else:
                continue
            scan = Scan("unclosed")
        except csv.Error:
            scan = scan_row(itertools.islice(text, done, None), dialect)
            if scan.outcome == "row" and _has_swallowed_rows(text, done, scan.lines, len(scan.cells), dialect):
                scan = Scan("unclosed")
        if scan.outcome == "row":
            yield done + scan.lines, _check_row(scan.cells, start + done, file)
            done += scan.lines
        elif scan.outcome == "open" and not ended:
            yield done, None
            return
        else:
            yield done + 1, Problem(file, start + done, OPEN_QUOTE, CLOSE_QUOTE)
            done += 1


def _make_reader(text: list[str], done: int, dialect: Dialect) -> Any:
    lines = itertools.islice(text, done, None)
    if dialect.backslash or dialect.delimiter == " ":
        return ScannedRows(lines, dialect)
    return csv.reader(
        lines,
        delimiter=dialect.delimiter,
        quotechar=dialect.quote,
        skipinitialspace=dialect.delimiter != "\t",
        strict=True,
    )


def _has_swallowed_rows(text: list[str], done: int, used: int, width: int, dialect: Dialect) -> bool:
    """Whether a row over several lines comes from an unclosed quote: its width is unusual, and that of a line in it
    is not."""
    if used == 1 or width == dialect.width:
        return False
    return any(line.count(dialect.delimiter) + 1 == dialect.width for line in text[done + 1 : done + used])


def _check_row(cells: list[str], line: int, file: str) -> Row | Problem:
    if len(cells) > MAX_COLUMNS:
        reason = f"This row has {len(cells):,} columns; at most {MAX_COLUMNS:,} are read."
        return Problem(file, line, reason, "Split it into several.")
    return line, cells
