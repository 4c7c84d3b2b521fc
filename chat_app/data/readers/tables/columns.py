"""Reads the rows of any kind of table as conversations, by the roles of its columns.

The layouts are: a context and a reply in each row, one turn per column, one message per row, or a list of messages in
a cell. The layout is guessed from the names and the first rows; the user's options override the guess.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chat_app.conversation import Conversation
from chat_app.data.readers.json import records
from chat_app.data.readers.options import ColumnRole, ReadingOptions
from chat_app.data.readers.tables import header_words, message_rows
from chat_app.data.readers.tables.cells import PARTS, detect_kind, format_cell, parse_list
from chat_app.data.readers.tables.column_guess import apply_options, guess_roles, label_columns, list_labels
from chat_app.data.readers.tables.message_rows import MessageRow
from chat_app.data.readers.turn_text import build_answered, build_unanswered, check_count, clean_text, split_context
from chat_app.data.readers.types import Column, Located, Part, Problem, RejectedError
from chat_app.errors import DataError

Row = tuple[int, Sequence[Any]]

SAMPLE_ROWS = 50
SAMPLE_CELLS = 3
LONGEST_SAMPLE = 200
MAX_COLUMNS = 1_000
WIDER = "Put a text that holds the separator in double quotes, or delete what is too much."


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
    roles = apply_options(names, guess_roles(names, sample_rows), options, "")
    return tuple(
        Column(label, role, _sample_cells(sample_rows, position))
        for position, (label, role) in enumerate(zip(label_columns(names), roles, strict=True))
    )


def _sample_cells(rows: Sequence[Sequence[Any]], position: int) -> tuple[str, ...]:
    texts = (format_cell(row[position]).strip() for row in rows if position < len(row))
    return tuple(text[:LONGEST_SAMPLE] for text in itertools.islice(filter(None, texts), SAMPLE_CELLS))


def is_header(cells: Sequence[Any], rows: Sequence[Sequence[Any]]) -> bool:
    """Whether the first row of a table is a header, compared with the rows below it."""
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
    if any(header_words.is_identifier(name) for name in said):
        return True
    below = [detect_kind([row[position] for row in rows if position < len(row)]) for position in range(len(names))]
    own = [detect_kind([name]) for name in names]
    telling = ("number", "running", "link", "date", "list")
    return len(rows) > 1 and any(kind in telling and here == "text" for kind, here in zip(below, own, strict=True))


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
    table = plan_columns(names, sample, file, options or ReadingOptions())
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


@dataclass(frozen=True)
class ColumnPlan:
    """The roles of the columns, and how to read rows by them.

    Attributes:
        roles: the role of each column.
        contexts, turns: the indices of the columns of these roles, in the order of the conversation.
        any_width: whether rows may have more columns than the table, which are further turns.
        options: the bot and the pause, for tables of messages.
    """

    roles: tuple[ColumnRole, ...]
    contexts: tuple[int, ...]
    turns: tuple[int, ...]
    any_width: bool
    options: ReadingOptions

    def find_column(self, role: ColumnRole) -> int:
        """The index of the first column with a role; -1 if there is none."""
        return self.roles.index(role) if role in self.roles else -1

    def read_conversations(
        self, rows: Iterable[Row | Problem], file: str, need_reply: bool
    ) -> Iterator[Located | Problem]:
        """Read the rows of a table. See the module's `read_conversations`."""
        by_message = self.find_column("conversation") >= 0 or self.find_column("speaker") >= 0
        if self.find_column("record") < 0 and by_message and (self.contexts or self.find_column("text") >= 0):
            messages = self._read_messages(rows, file)
            options = self.options
            return message_rows.read_conversations(
                messages, file, options.bot, pause=options.pause, need_reply=need_reply
            )
        return self._read_rows(rows, file, need_reply)

    def _read_rows(self, rows: Iterable[Row | Problem], file: str, need_reply: bool) -> Iterator[Located | Problem]:
        """Read one conversation from each row."""
        width = len(self.roles)
        split, system = self.find_column("split"), self.find_column("system")
        context, reply = self.contexts[0] if len(self.contexts) == 1 else -1, self.find_column("reply")
        simple = context >= 0 and reply >= 0 and self.find_column("record") < 0
        for row in rows:
            if isinstance(row, Problem):
                yield row
                continue
            line, cells = row
            try:
                if len(cells) != width:
                    cells = self._fit_width(cells)
                    if not cells:
                        continue
                head = format_cell(cells[system]).strip() or None if system >= 0 else None
                if simple and type(cells[context]) is str and type(cells[reply]) is str and cells[reply]:
                    found = build_answered(split_context(cells[context]), cells[reply], head)
                elif not any(format_cell(cell).strip() for cell in cells):
                    continue
                else:
                    found = self._build_conversation(cells, head, need_reply)
                part: Part = PARTS.get(format_cell(cells[split]).strip().casefold(), "train") if split >= 0 else "train"
                yield Located(found, line, file, part)
            except RejectedError as rejected:
                yield Problem(file, line, rejected.reason, rejected.advice)

    def _fit_width(self, cells: Sequence[Any]) -> list[Any]:
        """A row with the width of the table: empty cells at the end are removed or added. Empty for an empty row.

        Raises:
            RejectedError: the row has too many cells, or only one.
        """
        fitted = list(cells)
        while fitted and not format_cell(fitted[-1]).strip():
            fitted.pop()
        width = len(self.roles)
        if len(fitted) > width and not self.any_width:
            raise RejectedError(f"This row has {len(fitted):,} columns, but the table has {width:,}.", WIDER)
        if len(fitted) == 1 and width > 1:
            raise RejectedError(
                f"This row has 1 column, but the table has {width:,}.", "Separate its columns as in the other rows."
            )
        return fitted + [None] * (width - len(fitted)) if fitted else []

    def _build_conversation(self, cells: Sequence[Any], system: str | None, need_reply: bool) -> Conversation:
        record = self.find_column("record")
        if record >= 0:
            return _parse_list_cell(cells[record], system, need_reply)
        if self.turns:
            chosen = [*self.turns, *range(len(self.roles), len(cells))]
            return build_from_turns([format_cell(cells[position]) for position in chosen], chosen, system, need_reply)
        context = self._join_context(cells)
        return build_from_pair(context, format_cell(cells[self.find_column("reply")]), system, need_reply)

    def _join_context(self, cells: Sequence[Any]) -> list[str]:
        """The turns before the reply. Texts of several columns are joined into one; a list has one turn per item."""
        turns: list[str] = []
        open_turn = False
        for position in self.contexts:
            listed = cells[position] if isinstance(cells[position], list | tuple) else None
            if listed is None:
                text = format_cell(cells[position])
                listed = parse_list(text) if text.startswith("[") and text.endswith("]") else None
            if isinstance(listed, list | tuple):
                turns += [format_cell(turn) for turn in listed]
                open_turn = False
                continue
            pieces = split_context(text)
            if open_turn and text.strip():
                turns[-1] = f"{turns[-1].rstrip()}\n{pieces.pop(0).lstrip()}" if turns[-1].strip() else pieces.pop(0)
            elif open_turn or (not text.strip() and len(self.contexts) > 1 and turns):
                continue
            turns += pieces
            open_turn = True
        return turns or [""]

    def _read_messages(self, rows: Iterable[Row | Problem], file: str) -> Iterator[MessageRow | Problem]:
        """Read rows as messages; a row with a question and its answer is two messages."""
        key_at, speaker_at, text_at = (
            self.find_column("conversation"),
            self.find_column("speaker"),
            self.find_column("text"),
        )
        order_at, split_at, system_at, reply_at = (
            self.find_column(role) for role in ("time", "split", "system", "reply")
        )
        for row in rows:
            if isinstance(row, Problem):
                yield row
                continue
            line, cells = row
            try:
                cells = self._fit_width(cells) if len(cells) != len(self.roles) else cells
            except RejectedError as rejected:
                yield Problem(file, line, rejected.reason, rejected.advice)
                continue
            if not cells:
                cells = [None] * len(self.roles)
            key = format_cell(cells[key_at]).strip() if key_at >= 0 else None
            order = message_rows.parse_order(cells[order_at]) if order_at >= 0 else None
            part: Part = (
                PARTS.get(format_cell(cells[split_at]).strip().casefold(), "train") if split_at >= 0 else "train"
            )
            system = format_cell(cells[system_at]).strip() if system_at >= 0 else ""
            if text_at >= 0:
                speaker = format_cell(cells[speaker_at]).strip() if speaker_at >= 0 else None
                yield MessageRow(line, key, speaker, format_cell(cells[text_at]), order, part, system)
                continue
            for side, text in (
                ("user", "\n".join(self._join_context(cells))),
                ("assistant", format_cell(cells[reply_at])),
            ):
                yield MessageRow(line, key, side, text, order, part, system)


def plan_columns(
    names: Sequence[str], sample: Sequence[Sequence[Any]], file: str, options: ReadingOptions
) -> ColumnPlan:
    """Decide what to read from which column.

    Raises:
        DataError: no column holds conversations, or the options name a column that the table does not have.
    """
    roles = tuple(apply_options(names, guess_roles(names, sample), options, file))
    contexts = [position for position, role in enumerate(roles) if role == "context"]
    # The input of an instruction comes after it, in whatever order the columns are.
    contexts.sort(key=lambda position: header_words.normalize_name(names[position]) == "input")
    turns = [position for position, role in enumerate(roles) if role == "turn"]
    numbers = [header_words.split_number(header_words.normalize_name(names[position]))[1] for position in turns]
    if None not in numbers and len(set(numbers)) == len(turns):
        turns.sort(key=lambda position: header_words.split_number(header_words.normalize_name(names[position]))[1] or 0)
    complete = (
        "record" in roles
        or (contexts and "reply" in roles)
        or (turns and not contexts)
        or ("text" in roles and ("speaker" in roles or "conversation" in roles))
    )
    if not complete and sample:
        wanted = "Say what the columns hold, as in question=context and answer=reply."
        raise DataError(
            "No column of this table is known to hold a conversation.",
            where=file or None,
            advice=f"{wanted} Its columns are {list_labels(names)}.",
        )
    any_width = bool(turns) and not any(names)
    return ColumnPlan(roles, tuple(contexts), tuple(turns), any_width, options)


def build_from_pair(context: list[str], reply: str, system: str | None = None, need_reply: bool = True) -> Conversation:
    """Build a conversation from a context and its reply; without `need_reply` the reply may be empty.

    Raises:
        RejectedError: a text is empty or cannot be used.
    """
    if need_reply or reply.strip():
        return build_answered(context, reply, system)
    return build_unanswered(context, system)


def build_from_turns(
    cells: list[str], places: Sequence[int] = (), system: str | None = None, need_reply: bool = True
) -> Conversation:
    """Build a conversation from one turn per cell, of which the last is the reply.

    With two cells the first is a context, which may have several turns.

    Args:
        cells: the texts.
        places: the indices of their columns, for errors.
        system: the system text.
        need_reply: False allows an empty reply.

    Raises:
        RejectedError: there are fewer than two turns, or an empty one.
    """
    # Spreadsheets pad short rows with empty cells to the length of the longest.
    while len(cells) > 2 and not cells[-1].strip():
        cells = cells[:-1]
    if len(cells) == 2:
        return build_from_pair(split_context(cells[0]), cells[1], system, need_reply)
    places = places or range(len(cells))
    turns = [clean_text(cell, f"column {place + 1}") for cell, place in zip(cells, places, strict=False)]
    check_count(len(turns))
    return Conversation.from_turns(turns, system=system, last="assistant")


def _parse_list_cell(cell: Any, system: str | None, need_reply: bool) -> Conversation:
    value = parse_list(cell)
    if value is None:
        raise RejectedError(
            "There is no list of messages in this row.", "Write a list of turns there, or delete the row."
        )
    if system is not None and isinstance(value, list):
        value = {"system": system, "messages": value}
    return records.parse_conversation(value, need_reply=need_reply)
