"""Rows of a table whose columns are known -> conversations. Knows columns and cells; knows no files and no guesses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from chat_app.conversation import Conversation
from chat_app.data.readers.json import records
from chat_app.data.readers.notes import BadExamples, MarkedBadError
from chat_app.data.readers.options import ColumnRole, ReadingOptions
from chat_app.data.readers.tables import header_words, message_rows, threads
from chat_app.data.readers.tables.cells import PARTS, format_cell, parse_list, parse_verdict
from chat_app.data.readers.tables.message_rows import MessageRow
from chat_app.data.readers.tables.thread_columns import normalize_id
from chat_app.data.readers.tables.threads import ThreadRow
from chat_app.data.readers.text import role_markers
from chat_app.data.readers.turn_text import (
    UTTERANCE_END,
    build_answered,
    build_unanswered,
    check_count,
    clean_text,
    join_utterances,
    split_context,
)
from chat_app.data.readers.types import Located, Part, Problem, RejectedError

Row = tuple[int, Sequence[Any]]

WIDER = "Put a text that holds the separator in double quotes, or delete what is too much."
NARROWER = "Write the separator for each empty cell too, so that no text moves into another column."


@dataclass(frozen=True)
class ColumnPlan:
    """Which column is what.

    Attributes:
        roles: the role of each column.
        names: their names, "" for those without.
        contexts: the columns with what is said to the bot, in the order in which they are joined.
        turns: the columns with a turn each, in the order of a conversation.
        any_width: whether rows may have more columns than the table; those are further turns.
        options: what the person says.
        agreed_width: how many cells nearly every row has; 0 where rows may differ.
    """

    roles: tuple[ColumnRole, ...]
    names: tuple[str, ...]
    contexts: tuple[int, ...]
    turns: tuple[int, ...]
    any_width: bool
    options: ReadingOptions
    agreed_width: int = 0

    def find_column(self, role: ColumnRole) -> int:
        """The first column of that role, -1 if there is none."""
        return self.roles.index(role) if role in self.roles else -1

    def read_conversations(
        self, rows: Iterable[Row | Problem], file: str, need_reply: bool
    ) -> Iterator[Located | Problem]:
        """The conversations of the rows below the header; problems among them are handed on."""
        if "message" in self.roles and "parent" in self.roles and "text" in self.roles:
            speaker = self.find_column("speaker")
            inbound = speaker >= 0 and header_words.tells_side(self.names[speaker])
            replies = self._read_thread_rows(rows, file)
            return threads.read_conversations(replies, file, self.options.bot, inbound=inbound, need_reply=need_reply)
        by_message = self.find_column("conversation") >= 0 or self.find_column("speaker") >= 0
        if self.find_column("record") < 0 and by_message and (self.contexts or self.find_column("text") >= 0):
            messages = self._read_messages(rows, file)
            options = self.options
            return message_rows.read_conversations(
                messages, file, options.bot, pause=options.pause, need_reply=need_reply
            )
        return self._read_rows(rows, file, need_reply)

    def _read_rows(self, rows: Iterable[Row | Problem], file: str, need_reply: bool) -> Iterator[Located | Problem]:
        """A conversation a row."""
        width = len(self.roles)
        split, system = self.find_column("split"), self.find_column("system")
        context, reply = self.contexts[0] if len(self.contexts) == 1 else -1, self.find_column("reply")
        simple = context >= 0 and reply >= 0 and self.find_column("record") < 0
        label, bad = self.find_column("label"), BadExamples()
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
                if label >= 0 and parse_verdict(cells[label]) is False:
                    bad.add(f"{self.names[label] or label + 1}: {format_cell(cells[label])}", line)
                    continue
                head = format_cell(cells[system]).strip() or None if system >= 0 else None
                if simple and type(cells[context]) is str and type(cells[reply]) is str and cells[reply]:
                    said = cells[reply]
                    said = join_utterances(said) if UTTERANCE_END in said else said
                    found = build_answered(split_context(cells[context]), said, head)
                elif not any(format_cell(cell).strip() for cell in cells):
                    continue
                else:
                    found = self._build_conversation(cells, head, need_reply)
                part: Part = PARTS.get(format_cell(cells[split]).strip().casefold(), "train") if split >= 0 else "train"
                yield Located(found, line, file, part)
            except MarkedBadError as rejected:
                bad.add(rejected.mark, line)
            except RejectedError as rejected:
                yield Problem(file, line, rejected.reason, rejected.advice)
        yield from bad.iterate_notes(file)

    def _fit_width(self, cells: Sequence[Any]) -> list[Any]:
        """A row as wide as the table: empty cells at its end mean nothing. Empty if all of the row is."""
        fitted = list(cells)
        while fitted and not format_cell(fitted[-1]).strip():
            fitted.pop()
        width, agreed = len(self.roles), self.agreed_width
        if len(fitted) > (agreed or width) and (agreed or not self.any_width):
            reason = f"This row has {len(fitted):,} columns, but the table has {agreed or width:,}."
            raise RejectedError(reason, WIDER)
        if fitted and width > 1 and (len(fitted) == 1 or len(cells) < agreed):
            seen = 1 if len(fitted) == 1 else len(cells)
            reason = f"This row has {_count(seen)}, but the table has {width:,}."
            raise RejectedError(reason, NARROWER if len(cells) > 1 else "Separate its columns as in the other rows.")
        return fitted + [None] * (width - len(fitted)) if fitted else []

    def _build_conversation(self, cells: Sequence[Any], system: str | None, need_reply: bool) -> Conversation:
        record = self.find_column("record")
        if record >= 0:
            return self._parse_record(cells, record, system, need_reply)
        if self.turns:
            chosen = [*self.turns, *range(len(self.roles), len(cells))]
            return build_from_turns([format_cell(cells[position]) for position in chosen], chosen, system, need_reply)
        context = self._join_context(cells)
        return build_from_pair(context, format_cell(cells[self.find_column("reply")]), system, need_reply)

    def _parse_record(self, cells: Sequence[Any], record: int, system: str | None, need_reply: bool) -> Conversation:
        """The conversation in one cell; the reply that was chosen of two may stand in a cell of its own."""
        cell, name = cells[record], header_words.normalize_name(self.names[record])
        if isinstance(cell, str) and (found := role_markers.parse_conversation(cell, system, need_reply)):
            return found
        names = [header_words.normalize_name(one) for one in self.names]
        if name == "chosen" and "prompt" in names:
            value = {"prompt": _parse_cell(cells[names.index("prompt")]), "chosen": parse_list(cell)}
            return records.parse_conversation(value, need_reply=need_reply)
        if name != "chosen" and "chosen" in names:
            value = {"messages": parse_list(cell), "chosen": _parse_cell(cells[names.index("chosen")])}
            return records.parse_conversation(value, need_reply=need_reply)
        return _parse_list_cell(cell, system, need_reply)

    def _join_context(self, cells: Sequence[Any]) -> list[str]:
        """The turns before the reply. Texts of several columns become one turn, a line each; a list is turns."""
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

    def _read_thread_rows(self, rows: Iterable[Row | Problem], file: str) -> Iterator[ThreadRow | Problem]:
        """Rows as messages that answer each other."""
        key_at, parent_at, text_at = (self.find_column(role) for role in ("message", "parent", "text"))
        speaker_at, order_at, rank_at, split_at = (
            self.find_column(role) for role in ("speaker", "time", "rank", "split")
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
                continue
            rank = message_rows.parse_order(cells[rank_at]) if rank_at >= 0 else None
            yield ThreadRow(
                line,
                normalize_id(cells[key_at]),
                normalize_id(cells[parent_at]),
                format_cell(cells[speaker_at]).strip() if speaker_at >= 0 else "",
                format_cell(cells[text_at]),
                message_rows.parse_order(cells[order_at]) if order_at >= 0 else None,
                float(rank) if isinstance(rank, int | float) else None,
                PARTS.get(format_cell(cells[split_at]).strip().casefold(), "train") if split_at >= 0 else "train",
            )

    def _read_messages(self, rows: Iterable[Row | Problem], file: str) -> Iterator[MessageRow | Problem]:
        """Rows as messages. A row with a question and its answer is two."""
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


def sort_contexts(names: Sequence[str], positions: list[int]) -> list[int]:
    """Columns with what is said to the bot in the order of a prompt: instruction, context, input, question."""
    return sorted(positions, key=lambda position: header_words.rank_context(names[position]))


def build_from_pair(context: list[str], reply: str, system: str | None = None, need_reply: bool = True) -> Conversation:
    """A context and its reply; without `need_reply` the reply may be empty."""
    if need_reply or reply.strip():
        return build_answered(context, reply, system)
    return build_unanswered(context, system)


def build_from_turns(
    cells: list[str], places: Sequence[int] = (), system: str | None = None, need_reply: bool = True
) -> Conversation:
    """A turn a cell: the last is the assistant's reply. With two columns the first may hold several turns.

    Raises:
        RejectedError: fewer than two turns, or an empty one between others.
    """
    # Spreadsheets fill short rows with empty cells up to the longest row.
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


def _parse_cell(cell: Any) -> Any:
    """The list or the object in a cell, or its text."""
    value = parse_list(cell)
    return format_cell(cell) if value is None else value


def _count(cells: int) -> str:
    return "1 column" if cells == 1 else f"{cells:,} columns"
