"""Which columns of a table say what a message is called and which message it answers. Knows columns; knows no roles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chat_app.data.readers.tables import header_words
from chat_app.data.readers.tables.cells import format_cell
from chat_app.data.readers.tables.header_words import Meaning

# Reddit writes before an id what it is the id of: t1_ of a comment, t3_ of a post.
KIND_MARKS = ("t1_", "t3_", "t5_")
ID_NAMES = ("id", "ts", "uuid", "key", "name")


def find_ids(
    names: Sequence[str], meanings: Sequence[Meaning | None], columns: Sequence[Sequence[Any]]
) -> tuple[int, int] | None:
    """The column with a message's own id and that with the id of what it answers; None if a table has no such two.

    The id is the column in which the answered ids are found; among the first rows there may be none of them, so a name
    that ends like that of an id counts too.
    """
    for parent in (position for position, meaning in enumerate(meanings) if meaning == "parent"):
        wanted = {key for cell in columns[parent] if (key := normalize_id(cell))}
        if not wanted:
            continue
        best: tuple[int, int, int] | None = None
        for position, cells in enumerate(columns):
            keys = [normalize_id(cell) for cell in cells]
            if position == parent or not all(keys) or len(set(keys)) < len(keys):
                continue
            hits = len(wanted.intersection(keys))
            named = header_words.normalize_name(names[position]).rpartition(" ")[2] in ID_NAMES
            if (hits or named) and (best is None or (hits, named) > best[:2]):
                best = hits, named, position
        if best is not None:
            return best[2], parent
    return None


def normalize_id(cell: Any) -> str:
    """An id as ids are compared: without what Reddit writes before it and what pandas writes behind whole numbers."""
    text = format_cell(cell).strip()
    if text.startswith(KIND_MARKS):
        return text[3:]
    if text.endswith(".0") and text[:-2].isdecimal():
        return text[:-2]
    return "" if text.lower() in ("nan", "none", "null") else text
