"""Reads the rows of any kind of table as conversations, by the roles of its columns.

The layouts are: a context and a reply in each row, one turn per column, one message per row, or a list of messages in
a cell. The layout is guessed from the names and the first rows; the user's options override the guess.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from chat_app.data.readers.options import ColumnRole, ReadingOptions
from chat_app.data.readers.tables import header_words
from chat_app.data.readers.tables.cells import format_cell
from chat_app.data.readers.tables.column_guess import apply_options, guess_roles, label_columns, list_labels
from chat_app.data.readers.tables.column_plan import ColumnPlan, Row, sort_contexts
from chat_app.data.readers.types import Column, Located, Problem, quote_text
from chat_app.errors import DataError, UnclearColumnsError

SAMPLE_ROWS = 50
SAMPLE_CELLS = 3
LONGEST_SAMPLE = 200
MAX_COLUMNS = 1_000
FEWEST_AGREED, AGREED_SHARE = 3, 0.1
EXAMPLE = ((0, "context"), (-1, "reply"))
ASK = "Which column is the question, and which is the answer?"


def guess_columns(names: Sequence[str], sample_rows: Sequence[Sequence[Any]]) -> dict[str, ColumnRole]:
    """Guess the roles of the columns.

    Returns:
        Label -> role; a column's label is its name, or its number from 1 if the name is empty or not unique.
    """
    return dict(zip(label_columns(names), guess_roles(names, sample_rows), strict=True))


def preview_columns(
    names: Sequence[str], sample_rows: Sequence[Sequence[Any]], options: ReadingOptions
) -> tuple[Column, ...]:
    """The columns with their roles and their first cells.

    Raises:
        DataError: the options name a column that the table does not have.
    """
    roles = apply_options(names, guess_roles(names, sample_rows, options.layout), options, "")
    return tuple(
        Column(label, role, _sample_cells(sample_rows, position))
        for position, (label, role) in enumerate(zip(label_columns(names), roles, strict=True))
    )


def _sample_cells(rows: Sequence[Sequence[Any]], position: int) -> tuple[str, ...]:
    texts = (format_cell(row[position]).strip() for row in rows if position < len(row))
    return tuple(text[:LONGEST_SAMPLE] for text in itertools.islice(filter(None, texts), SAMPLE_CELLS))


def read_conversations(
    rows: Iterable[Row | Problem],
    names: Sequence[str],
    file: str,
    options: ReadingOptions | None = None,
    *,
    need_reply: bool = True,
) -> Iterator[Located | Problem]:
    """Read the conversations of a table.

    Args:
        rows: numbered rows, with cells that are texts, numbers, dates, lists or None; problems among them are yielded
            in their place.
        names: the names of the columns, "" for one without a name.
        file: the name to show for the file.
        options: the roles of columns, the bot and the pause.
        need_reply: False also yields conversations without a reply.

    Raises:
        DataError: no column holds conversations, or the options name a column that the table does not have.
    """
    rows = iter(rows)
    first = list(itertools.islice(rows, SAMPLE_ROWS))
    sample = [item[1] for item in first if not isinstance(item, Problem)]
    table = plan_columns(names, sample, file, options or ReadingOptions(), ragged=True)
    return table.read_conversations(itertools.chain(first, rows), file, need_reply)


def read_records(
    items: Iterable[tuple[int, Mapping[str, Any]] | Problem],
    file: str,
    options: ReadingOptions | None = None,
    *,
    need_reply: bool = True,
) -> Iterator[Located | Problem]:
    """Read the conversations of flat objects, such as lines of JSON or rows of a data set; each field is a column.

    The columns are the fields of the first 50 objects.

    Raises:
        DataError: as `read_conversations`, or there are more than 1,000 columns.
    """
    items = (item if isinstance(item, Problem) else _check_width(item, file) for item in items)
    first = list(itertools.islice(items, SAMPLE_ROWS))
    names = list(dict.fromkeys(name for item in first if not isinstance(item, Problem) for name in item[1]))
    if len(names) > MAX_COLUMNS:
        raise DataError(
            f"The first rows name {len(names):,} different columns; at most {MAX_COLUMNS:,} are read.",
            where=file,
            advice="Give each row the same names.",
        )
    rows = (
        item if isinstance(item, Problem) else (item[0], [item[1].get(name) for name in names])
        for item in itertools.chain(first, items)
    )
    return read_conversations(rows, names, file, options, need_reply=need_reply)


def _check_width(item: tuple[int, Mapping[str, Any]], file: str) -> tuple[int, Mapping[str, Any]] | Problem:
    if len(item[1]) <= MAX_COLUMNS:
        return item
    reason = f"This row has {len(item[1]):,} columns; at most {MAX_COLUMNS:,} are read."
    return Problem(file, item[0], reason, "Leave only those with the conversations.")


def plan_columns(
    names: Sequence[str],
    sample: Sequence[Sequence[Any]],
    file: str,
    options: ReadingOptions,
    *,
    ragged: bool = False,
) -> ColumnPlan:
    """Decide what to read from which column.

    Args:
        names: of the columns, "" for those without a name.
        sample: the first rows.
        file: what to call the table to the person.
        options: what the person says.
        ragged: rows are as wide as they were written, so that one of another width is a mistake.

    Raises:
        DataError: no column holds conversations, or the options name a column that the table does not have.
    """
    roles = tuple(apply_options(names, guess_roles(names, sample, options.layout), options, file))
    contexts = sort_contexts(names, [position for position, role in enumerate(roles) if role == "context"])
    turns = [position for position, role in enumerate(roles) if role == "turn"]
    numbers = [header_words.split_number(header_words.normalize_name(names[position]))[1] for position in turns]
    if None not in numbers and len(set(numbers)) == len(turns):
        turns.sort(key=lambda position: header_words.split_number(header_words.normalize_name(names[position]))[1] or 0)
    complete = (
        "record" in roles
        or (contexts and "reply" in roles)
        or (turns and not contexts)
        or ("text" in roles and ("speaker" in roles or "conversation" in roles))
        or ("text" in roles and "message" in roles and "parent" in roles)
    )
    if not complete and sample:
        found = preview_columns(names, sample, ReadingOptions())
        given = [quote_text(f"{found[place].name}={role}") for place, role in EXAMPLE] if found else []
        example = " ".join(f"--columns {one}" for one in given)
        raise UnclearColumnsError(
            "Nothing in this table is known to be talk.",
            tuple((column.name, column.sample) for column in found),
            where=file or None,
            advice=f"{ASK} Say it as in {example}. Its columns are {list_labels(names)}.",
        )
    any_width = bool(turns) and not any(names)
    agreed = find_agreed_width(names, sample) if ragged else 0
    return ColumnPlan(roles, tuple(names), tuple(contexts), tuple(turns), any_width, options, agreed)


def find_agreed_width(names: Sequence[str], sample: Sequence[Sequence[Any]]) -> int:
    """How many cells nearly all of the first rows have, the header among them; 0 if they do not agree."""
    widths = Counter(len(row) for row in sample if any(format_cell(cell).strip() for cell in row))
    named = any(names)
    widths[len(names)] += named
    if not widths:
        return 0
    width, count = widths.most_common(1)[0]
    others = widths.total() - count
    if count < FEWEST_AGREED or (named and width != len(names)):
        return 0
    return width if others <= (count if named else max(1, AGREED_SHARE * widths.total())) else 0
