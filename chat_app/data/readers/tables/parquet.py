"""The reader of Parquet tables. It reads batches of rows, and only the columns that are needed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.tables import columns
from chat_app.data.readers.tables.column_plan import Row
from chat_app.data.readers.types import Column, Located, Preview, Problem
from chat_app.errors import DataError

SIGNATURE = b"PAR1"
# Other formats of Arrow: Arrow IPC files (Feather 2), and Feather 1.
RELATIVES = (b"ARROW1", b"FEA1")
BATCH_ROWS = 1_024
MAX_BATCH_BYTES = 1 << 30
AGAIN = "Save or download it again."
CONVERT = "Save it as Parquet: pyarrow.feather.read_table(name) and pyarrow.parquet.write_table(table, name)."


@dataclass(frozen=True)
class ParquetReader:
    """Reads a Parquet table."""

    path: Path
    name: str
    options: ReadingOptions

    @classmethod
    def sniff(cls, file: InputFile) -> ParquetReader | None:
        """A reader for a Parquet file, and for an Arrow file, which `read` rejects with advice."""
        return cls(file.path, file.name, file.options) if is_parquet(file.head) else None

    def preview(self) -> Preview:
        """The columns."""
        return Preview(self.name, "parquet", columns=preview_columns(self.path, self.name, self.options))

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations and the problems, row by row."""
        return read_conversations(self.path, self.name, self.options, need_reply=need_reply)


def read_conversations(
    path: Path, name: str, options: ReadingOptions | None = None, *, need_reply: bool = True
) -> Iterator[Located | Problem]:
    """Read the conversations of a Parquet table. A conversation's line is the number of its row, from 1.

    Raises:
        DataError: the file is damaged or too wide, or no column holds conversations.
    """
    options = options or ReadingOptions()
    names, sample = _read_first_rows(path, name)
    table = columns.plan_columns(names, sample, name, options)
    needed = [place for place, role in enumerate(table.roles) if role != "ignore"]
    return table.read_conversations(_read_rows(path, name, names, needed), name, need_reply)


def preview_columns(path: Path, name: str, options: ReadingOptions | None = None) -> tuple[Column, ...]:
    """The columns of a Parquet table.

    Raises:
        DataError: the file is damaged or too wide, or the options name a column that the table does not have.
    """
    names, sample = _read_first_rows(path, name)
    return columns.preview_columns(names, sample, options or ReadingOptions())


def is_parquet(head: bytes) -> bool:
    """Whether the first bytes are those of a Parquet file, or of an Arrow file, for which there is advice."""
    return head.startswith((SIGNATURE, *RELATIVES))


def _read_first_rows(path: Path, name: str) -> tuple[list[str], list[list[Any]]]:
    with path.open("rb") as file:
        if file.read(len(RELATIVES[0])).startswith(RELATIVES):
            raise DataError("This is an Arrow (Feather) table.", where=name, advice=CONVERT)
    with _open_parquet(path, name) as file:
        names = list(file.schema_arrow.names)
        if len(names) > columns.MAX_COLUMNS:
            raise DataError(
                f"This table has {len(names):,} columns; at most {columns.MAX_COLUMNS:,} are read.",
                where=name,
                advice="Leave only those with the conversations.",
            )
        batch = next(file.iter_batches(batch_size=columns.SAMPLE_ROWS, use_threads=False), None)
        if batch is None:
            return names, []
        return names, [list(row) for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]


def _read_rows(path: Path, name: str, names: list[str], needed: list[int]) -> Iterator[Row]:
    """All rows with the width of the table; cells of columns that are not needed are None."""
    chosen = [names[place] for place in needed]
    if len(set(names)) < len(names):
        needed, chosen = list(range(len(names))), []
    number = 0
    with _open_parquet(path, name) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=chosen or None, use_threads=False):
            if batch.nbytes > MAX_BATCH_BYTES:
                raise DataError("The cells of this table are too large.", where=name, advice="Shorten them.")
            cells: list[Any] = [itertools.repeat(None)] * len(names)
            for place, column in zip(needed, batch.columns, strict=True):
                cells[place] = column.to_pylist()
            yield from zip(itertools.count(number + 1), zip(*cells, strict=False), strict=False)
            number += batch.num_rows


@contextmanager
def _open_parquet(path: Path, name: str) -> Iterator[Any]:
    import pyarrow  # slow to import
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            yield file
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError("This Parquet table is damaged or cut off.", where=name, advice=AGAIN) from error
    except (ArithmeticError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        advice = "Check the dates and numbers in it, or save it as CSV."
        raise DataError(
            "A cell of this Parquet table holds a value that none can be.", where=name, advice=advice
        ) from error
