"""Where the header of a table is: whether a row names the columns, and which of the first rows that is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.tables import header_words
from chat_app.data.readers.tables.cells import detect_kind, format_cell
from chat_app.data.readers.tables.header_words import Meaning

# Titles, dates and empty rows may stand above the names of the columns.
MAX_TITLE_ROWS = 10
ASKED: tuple[Meaning, ...] = ("context", "user", "text")
SMALL_WORD = re.compile("[a-z][a-z0-9_]{2,30}")
ANSWERED: tuple[Meaning, ...] = ("reply", "assistant")


def find_header(rows: Sequence[Sequence[Any]], options: ReadingOptions) -> int:
    """The place of the row that names the columns among the first rows; -1 if there is none.

    What the person says goes before what the cells tell: names of columns are looked for in the rows.
    """
    if options.header == "no" or not rows:
        return -1
    first = next((place for place, row in enumerate(rows) if _list_full(row)), -1)
    if first < 0:
        return -1
    named = _find_named(rows, options)
    if named >= 0 or options.header == "yes":
        return max(named, first)
    width = max(len(_list_full(row)) for row in rows)
    for place, row in enumerate(rows[: MAX_TITLE_ROWS + 1]):
        below = rows[place + 1 :]
        if is_header(row, below) and (place == first or names_pair(row)):
            return place
        if len(_list_full(row)) > 1 or width < 2:
            return -1
    return -1


def is_header(cells: Sequence[Any], rows: Sequence[Sequence[Any]]) -> bool:
    """Whether a row of a table names its columns, judged beside the rows after it."""
    names = [format_cell(cell).strip().removeprefix("\ufeff") for cell in cells]
    said = [name for name in names if name]
    if not said or any(len(name) > header_words.LONGEST_NAME or "\n" in name for name in said):
        return False
    if any(cell is not None and not isinstance(cell, str) for cell in cells):
        return False
    known = [header_words.find_meaning(name) for name in said if not name.endswith(("?", "!", "."))]
    known = [meaning for meaning in known if meaning]
    if len(known) == len(said) or (len(known) >= 2 and 2 * len(known) >= len(said)):
        return len(said) > 1 or len(names) == 1
    if _has_pair(known) or any(header_words.is_identifier(name) for name in said):
        return True
    if _differ_in_case(names, rows):
        return True
    below = [detect_kind([row[position] for row in rows if position < len(row)]) for position in range(len(names))]
    own = [detect_kind([name]) for name in names]
    telling = ("number", "running", "link", "date", "list", "address", "file", "id", "marked", "verdict")
    return len(rows) > 1 and any(kind in telling and here == "text" for kind, here in zip(below, own, strict=True))


def _differ_in_case(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> bool:
    """Whether all names are single words in small letters, and no text below begins with a small letter.

    People who write their greetings in small letters write the rest so, too; programs name columns like this.
    """
    below = [text for row in rows for text in _list_full(row)]
    capitals = sum(text[0].isupper() for text in below)
    return (
        len(names) > 1
        and len(rows) > 1
        and all(map(SMALL_WORD.fullmatch, names))
        and not any("a" <= text[0] <= "z" for text in below)
        and 2 * capitals >= len(below)
    )


def names_pair(cells: Sequence[Any]) -> bool:
    """Whether the cells name a column with what is asked and one with what is answered."""
    names = [format_cell(cell).strip() for cell in cells]
    return _has_pair([header_words.find_meaning(name) for name in names if name])


def _has_pair(meanings: Sequence[Meaning | None]) -> bool:
    return any(meaning in ASKED for meaning in meanings) and any(meaning in ANSWERED for meaning in meanings)


def _find_named(rows: Sequence[Sequence[Any]], options: ReadingOptions) -> int:
    """The first row that holds all the names that the person gave columns; -1 if none does. Numbers are no names."""
    wanted = {" ".join(key.split()).casefold() for key in options.parse_roles() if not key.isdecimal()}
    if not wanted:
        return -1
    for place, row in enumerate(rows[: MAX_TITLE_ROWS + 1]):
        if wanted <= {" ".join(format_cell(cell).replace("\ufeff", "").split()).casefold() for cell in row}:
            return place
    return -1


def _list_full(row: Sequence[Any]) -> list[str]:
    return [text for cell in row if (text := format_cell(cell).strip())]
