"""What of a workbook's sheets the library does not tell while it streams: formulas, and cells that were merged."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PIECE_BYTES, OVERLAP = 1 << 20, 64
MERGED = re.compile(rb'<mergeCell ref="([A-Z]{1,3})([0-9]{1,7}):[A-Z]{1,3}([0-9]{1,7})"')
MAX_MERGED = 100_000


@dataclass
class SheetParts:
    """What stands in the parts of a workbook.

    Attributes:
        has_formulas: whether any sheet has one.
        merged: by part, (column, first row, last row) of each range of merged cells that goes over several rows.
    """

    has_formulas: bool = False
    merged: dict[str, set[tuple[int, int, int]]] = field(default_factory=dict)


def scan_parts(path: Path) -> SheetParts:
    """Look through the sheets of a workbook once, in bounded memory."""
    found = SheetParts()
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            if not (entry.startswith("xl/worksheets/") and entry.endswith(".xml")):
                continue
            merged = found.merged.setdefault(entry, set())
            with archive.open(entry) as file:
                before = b""
                while piece := file.read(PIECE_BYTES):
                    text = before + piece
                    found.has_formulas = found.has_formulas or b"<f>" in text or b"<f " in text
                    for match in MERGED.finditer(text) if len(merged) < MAX_MERGED else ():
                        first, last = int(match[2]), int(match[3])
                        if last > first:
                            merged.add((_parse_letters(match[1]), first, last))
                    before = piece[-OVERLAP:]
    return found


class MergedCells:
    """Writes what merged cells hold into every row that they go over; the file has it only in the first one.

    Args:
        parts: of the workbook.
        sheet: one of its sheets, as openpyxl gives it for reading.
    """

    def __init__(self, parts: SheetParts, sheet: Any):
        ranges = parts.merged.get(getattr(sheet, "_worksheet_path", ""), set())
        self._ranges = sorted(ranges, key=lambda one: one[1])
        self._open: list[tuple[int, int, Any]] = []
        self._next = 0

    def fill(self, number: int, cells: list[Any]) -> list[Any]:
        """The cells of a row with what merged cells above it hold. Rows are given in their order."""
        if self._next == len(self._ranges) and not self._open:
            return cells
        self._open = [one for one in self._open if one[1] >= number]
        filled = any(cell is not None for cell in cells)
        for column, _, value in self._open if filled else ():
            cells += [None] * (column + 1 - len(cells))
            if cells[column] is None:
                cells[column] = value
        for column, last in self._begin(number):
            if column < len(cells) and cells[column] is not None:
                self._open.append((column, last, cells[column]))
        return cells

    def _begin(self, number: int) -> Iterator[tuple[int, int]]:
        """The merged cells whose first row this is, or was left out."""
        while self._next < len(self._ranges) and self._ranges[self._next][1] <= number:
            column, first, last = self._ranges[self._next]
            self._next += 1
            if first == number:
                yield column, last


def _parse_letters(letters: bytes) -> int:
    """The place of a column from 0: A is 0, AA is 26."""
    place = 0
    for letter in letters:
        place = place * 26 + letter - 64
    return place - 1
