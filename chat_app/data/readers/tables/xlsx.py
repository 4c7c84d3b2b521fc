"""The reader of Excel workbooks, sheet by sheet, with limits against zip bombs and XML entities."""

from __future__ import annotations

import itertools
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chat_app.data.readers.detect_binary import OLE, ZIP_HEADS
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.tables import columns
from chat_app.data.readers.tables.cells import format_cell
from chat_app.data.readers.tables.column_plan import Row
from chat_app.data.readers.tables.sheet_parts import MergedCells, SheetParts, scan_parts
from chat_app.data.readers.tables.table_header import find_header
from chat_app.data.readers.types import Column, Located, Preview, Problem
from chat_app.errors import DataError
from chat_app.formatting import format_bytes

MAX_ROWS = 1_048_576  # what Excel allows
# An empty cell costs as much as a full one, and a single cell at the far right makes 16,384 of them.
MAX_CELLS = 200_000_000
FREE_BYTES, MAX_RATIO, MAX_BYTES = 50_000_000, 200, 2_000_000_000
MAX_TEXT_BYTES = 500_000_000
ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
ERRORS = frozenset(("#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NULL!", "#NUM!", "#SPILL!", "#CALC!"))
DAMAGED = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, SyntaxError,
    RuntimeError, ArithmeticError, AssertionError,
)  # fmt: skip
HEAD_BYTES = 4_096
WORKBOOK = {"read_only": True, "keep_links": False}
AS_CSV = "Open it, and save it as .xlsx or as CSV UTF-8."


@dataclass(frozen=True)
class XlsxReader:
    """Reads an Excel workbook."""

    path: Path
    name: str
    options: ReadingOptions

    @classmethod
    def sniff(cls, file: InputFile) -> XlsxReader | None:
        """A reader for a zip file, as archives were unpacked before, and for an old Office file, which it rejects."""
        return cls(file.path, file.name, file.options) if is_workbook(file.head) else None

    def preview(self) -> Preview:
        """The columns."""
        return Preview(self.name, "xlsx", columns=preview_columns(self.path, self.name, self.options))

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations and the problems, row by row."""
        return read_conversations(self.path, self.name, self.options, need_reply=need_reply)


def read_conversations(
    path: Path, name: str, options: ReadingOptions | None = None, *, need_reply: bool = True
) -> Iterator[Located | Problem]:
    """Read the conversations of all sheets in their order; sheets without any become problems.

    Raises:
        DataError: on the call if the file is no .xlsx workbook, is encrypted or far too large; during iteration if no
            sheet can be used.
    """
    _check(path, name)
    return _read_book(path, name, options or ReadingOptions(), need_reply)


def preview_columns(path: Path, name: str, options: ReadingOptions | None = None) -> tuple[Column, ...]:
    """The columns of the first sheet with conversations, else of the first sheet with any cells.

    Raises:
        DataError: the workbook cannot be read.
    """
    _check(path, name)
    found: tuple[Column, ...] = ()
    options = options or ReadingOptions()
    with _open_book(path, name) as sheets:
        for where, items in sheets:
            names, rows = _split_header(items, options)
            sample = [row[1] for row in itertools.islice(rows, columns.SAMPLE_ROWS) if not isinstance(row, Problem)]
            try:
                found = found or columns.preview_columns(names, sample, options if sample else ReadingOptions())
                if sample:
                    columns.plan_columns(names, sample, where, options)
                    return columns.preview_columns(names, sample, options)
            except DataError:
                continue
    return found


def is_workbook(head: bytes) -> bool:
    """Whether the first bytes are those of a workbook, or of an old or encrypted one, for which there is advice."""
    return head.startswith((*ZIP_HEADS, OLE))


def _read_book(path: Path, name: str, options: ReadingOptions, need_reply: bool) -> Iterator[Located | Problem]:
    failures: list[DataError] = []
    used = False
    with _open_book(path, name) as sheets:
        for where, items in sheets:
            names, rows = _split_header(items, options)
            first = list(itertools.islice(rows, columns.SAMPLE_ROWS))
            if not first:
                continue
            sample = [row[1] for row in first if not isinstance(row, Problem)]
            try:
                table = columns.plan_columns(names, sample, where, options)
            except DataError as error:
                failures.append(error)
                continue
            used = True
            yield from table.read_conversations(itertools.chain(first, rows), where, need_reply)
    if failures and not used:
        raise failures[0]
    for failure in failures:
        yield Problem(failure.where or name, None, failure.what, failure.advice or "")


def _split_header(items: Iterator[Row | Problem], options: ReadingOptions) -> tuple[list[str], Iterator[Row | Problem]]:
    first = list(itertools.islice(items, columns.SAMPLE_ROWS))
    places = [place for place, item in enumerate(first) if not isinstance(item, Problem)]
    cells = [item[1] for item in first if not isinstance(item, Problem)]
    width = max(map(len, cells), default=0)
    names = [""] * width
    place = find_header(cells, options)
    if place >= 0:
        names = [format_cell(cell).strip() for cell in cells[place]] + names[len(cells[place]) :]
        del first[: places[place] + 1]
    return names, itertools.chain(first, items)


@contextmanager
def _open_book(path: Path, name: str) -> Iterator[Iterator[tuple[str, Iterator[Row | Problem]]]]:
    """A context manager with the sheets: the name to show for each, and its rows."""
    import openpyxl  # slow to import

    # Opened here, because the library rejects paths without the right extension.
    with ExitStack() as stack:
        formulas = None
        with _explain_damage(name):
            book = stack.enter_context(
                closing(openpyxl.load_workbook(stack.enter_context(path.open("rb")), data_only=True, **WORKBOOK))
            )
            parts = scan_parts(path)
            if parts.has_formulas:
                formulas = stack.enter_context(
                    closing(openpyxl.load_workbook(stack.enter_context(path.open("rb")), **WORKBOOK))
                )
        yield _iterate_sheets(book, formulas, parts, name)


def _iterate_sheets(
    book: Any, formulas: Any, parts: SheetParts, name: str
) -> Iterator[tuple[str, Iterator[Row | Problem]]]:
    several = len(book.worksheets) > 1
    for position, sheet in enumerate(book.worksheets):
        where = f"{name}, sheet {sheet.title}" if several else name
        written = formulas.worksheets[position] if formulas else None
        yield where, _read_rows(sheet, written, where, MergedCells(parts, sheet))


def _read_rows(sheet: Any, formulas: Any, where: str, merged: MergedCells) -> Iterator[Row | Problem]:
    """The numbered rows that are not empty, without empty cells at the end."""
    written = _iterate_values(formulas) if formulas else itertools.repeat(())
    count = 0
    with _explain_damage(where):
        for number, (row, source) in enumerate(zip(_iterate_values(sheet), written, strict=False), start=1):
            count += len(row) + 1
            if count > MAX_CELLS:
                yield Problem(where, number, "The sheet is far too wide; the rest was left out.", AS_CSV)
                return
            if not row:
                continue
            cells = [None if isinstance(cell, str) and cell in ERRORS else cell for cell in row]
            empty = _find_uncomputed(cells, source)
            if empty:
                reason = f"The cell {empty}{number} holds a formula whose result is not stored."
                yield Problem(
                    where, number, reason, "Open the file in Excel or LibreOffice, save it, and give it again."
                )
                continue
            cells = merged.fill(number, cells)
            while cells and cells[-1] is None:
                cells.pop()
            if len(cells) > columns.MAX_COLUMNS:
                reason = f"This row has {len(cells):,} columns; at most {columns.MAX_COLUMNS:,} are read."
                yield Problem(where, number, reason, "Leave only those with the conversations.")
            elif cells:
                yield number, cells


def _iterate_values(sheet: Any) -> Iterator[tuple[Any, ...]]:
    sheet.reset_dimensions()  # The size that a file declares may be far too large.
    rows: Iterator[tuple[Any, ...]] = sheet.iter_rows(max_row=MAX_ROWS, values_only=True)
    return rows


def _find_uncomputed(cells: Sequence[Any], source: Sequence[Any]) -> str:
    """The letters of the first column with a formula but no stored value; empty if there is none."""
    from openpyxl.utils import get_column_letter

    for position, (cell, formula) in enumerate(zip(cells, source, strict=False), start=1):
        if cell is None and formula is not None:
            text = formula if isinstance(formula, str) else "="  # an array formula is an object
            if text.startswith("="):
                return str(get_column_letter(position))
    return ""


def _check(path: Path, name: str) -> None:
    with path.open("rb") as file:
        if file.read(len(OLE)) == OLE:
            locked = any(ENCRYPTED in piece for piece in iter(lambda: file.read(1 << 20), b""))
            if locked:
                advice = "Open it in Excel, take the password away (File, Info, Protect Workbook), and save it."
                raise DataError("This workbook is locked with a password.", where=name, advice=advice)
            raise DataError("This is a workbook or document of an old Office (.xls, .doc).", where=name, advice=AS_CSV)
    with _explain_damage(name), zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        defines = any(_defines_entities(archive, entry) for entry in sizes if entry.endswith((".xml", ".rels")))
    if defines:
        what = "This workbook holds definitions (a DOCTYPE) that no spreadsheet program writes, and that can do harm."
        raise DataError(what, where=name, advice=AS_CSV)
    total = sum(sizes.values())
    if (
        total > MAX_BYTES
        or (total > FREE_BYTES and total > MAX_RATIO * path.stat().st_size)
        or sizes.get("xl/sharedStrings.xml", 0) > MAX_TEXT_BYTES
    ):
        raise DataError(f"This workbook unpacks to {format_bytes(total)}.", where=name, advice="Save it as CSV UTF-8.")


def _defines_entities(archive: zipfile.ZipFile, entry: str) -> bool:
    """Whether an XML part has a DOCTYPE, whose entities could expand to gigabytes or read files."""
    with archive.open(entry) as file:
        return b"<!DOCTYPE" in file.read(HEAD_BYTES)


@contextmanager
def _explain_damage(where: str) -> Iterator[None]:
    """A context manager that turns the library's exceptions about broken workbooks into a DataError."""
    try:
        yield
    except DataError:
        raise
    except DAMAGED as error:
        advice = "Open it in Excel or LibreOffice and save it again, or save it as CSV UTF-8."
        raise DataError("This workbook is damaged or cut off.", where=where, advice=advice) from error
