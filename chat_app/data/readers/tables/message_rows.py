"""Rows of one message each -> conversations. Knows ids, speakers and their order; knows no files and no columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple

from chat_app.conversation import Conversation, Message, Role
from chat_app.data.readers.tables import header_words
from chat_app.data.readers.turn_text import MAX_TURNS, clean_text
from chat_app.data.readers.types import Located, Part, Problem, RejectedError

# Rows of several conversations may be mixed, as they are in a log: so many conversations and characters are kept open.
MAX_OPEN = 2_000
MAX_OPEN_CHARACTERS = 50_000_000
MAX_ROWS = 2 * MAX_TURNS
ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")
NO_REPLY = "The assistant says nothing in this conversation."
NO_REPLY_ADVICE = "Check the column with the speakers, or say who the bot is."


class MessageRow(NamedTuple):
    """One message. `key` is its conversation's id (None: the one before goes on); `order` is a time or a number."""

    line: int
    key: str | None
    speaker: str | None
    text: str
    order: Any
    part: Part
    system: str


@dataclass(slots=True)
class _OpenConversation:
    """A conversation whose rows are still being collected."""

    line: int
    part: Part
    rows: list[MessageRow] = field(default_factory=list)
    orders: set[Any] = field(default_factory=set)
    count: int = 0
    characters: int = 0

    def add(self, row: MessageRow) -> None:
        self.count += 1
        self.characters += len(row.text)
        if self.count <= MAX_ROWS:
            self.rows.append(row)
            self.orders.add(row.order)


def read_conversations(
    rows: Iterable[MessageRow | Problem], file: str, bot: str = "", *, pause: float = 240.0, need_reply: bool = True
) -> Iterator[Located | Problem]:
    """Conversations, each at the line of its first message.

    Rows of one id belong together, wherever they stand: the 2,000 conversations that were touched last are kept open.
    An id that comes back later than that, or whose numbering begins again, begins a new conversation; nothing is lost.
    Without an id a conversation ends where the numbering begins again, after a pause of so many minutes, at an empty
    row, and after 2,000 messages.
    """
    opened: dict[tuple[Part, str | None], _OpenConversation] = {}
    characters, latest = 0, None
    for row in rows:
        if isinstance(row, Problem):
            yield row
            continue
        key = (row.part, row.key)
        current = opened.pop(key, None)
        if current and _begins_new(current, row, key == latest, pause):
            characters -= current.characters
            yield _finish(current, file, bot, need_reply)
            current = None
        latest = key
        if not row.text.strip():
            if current:
                opened[key] = current
            continue
        current = current or _OpenConversation(row.line, row.part)
        current.add(row)
        characters += len(row.text)
        opened[key] = current  # now the one touched last
        while len(opened) > 1 and (len(opened) > MAX_OPEN or characters > MAX_OPEN_CHARACTERS):
            oldest = opened.pop(next(iter(opened)))
            characters -= oldest.characters
            yield _finish(oldest, file, bot, need_reply)
    for left in sorted(opened.values(), key=lambda one: one.line):
        yield _finish(left, file, bot, need_reply)


def _begins_new(current: _OpenConversation, row: MessageRow, follows: bool, pause: float) -> bool:
    before = current.rows[-1].order
    numbers = isinstance(row.order, int | float) and isinstance(before, int | float)
    if row.key is not None:
        return numbers and not follows and row.order in current.orders
    if not row.text.strip() or current.count >= MAX_TURNS:
        return True
    if numbers:
        return bool(row.order < before)
    if isinstance(row.order, datetime) and isinstance(before, datetime):
        return bool(abs((row.order - before).total_seconds()) > 60 * pause)
    return False


def parse_order(cell: Any) -> Any:
    """What rows are put in order by: a number or a date without its zone; None if the cell tells neither."""
    if isinstance(cell, bool):
        return None
    if isinstance(cell, datetime):
        return cell.replace(tzinfo=None)
    if isinstance(cell, date):
        return datetime(cell.year, cell.month, cell.day)
    if isinstance(cell, int | float):
        return cell if cell == cell else None
    if not isinstance(cell, str) or len(cell) > 40:
        return None
    cell = cell.strip()
    try:
        if ISO_DATE.match(cell):
            return datetime.fromisoformat(cell.replace("Z", "+00:00")).replace(tzinfo=None)
        return int(cell) if cell.isdecimal() else None
    except (ValueError, OverflowError):
        return None


def _finish(current: _OpenConversation, file: str, bot: str, need_reply: bool) -> Located | Problem:
    try:
        if current.count > MAX_ROWS:
            raise RejectedError(
                f"This conversation has {current.count:,} messages; at most {MAX_ROWS:,} are read.",
                "Split it into several ones.",
            )
        return Located(_build_conversation(current.rows, bot, need_reply), current.line, file, current.part)
    except RejectedError as rejected:
        return Problem(file, current.line, rejected.reason, rejected.advice)


def _build_conversation(rows: list[MessageRow], bot: str, need_reply: bool) -> Conversation:
    kinds = {type(row.order) for row in rows}
    if kinds in ({int}, {float}, {int, float}, {datetime}):
        rows = sorted(rows, key=lambda row: row.order)  # stable: rows of the same second stay as they stand
    sides = _assign_sides(rows, bot)
    messages = [Message("system", rows[0].system)] if rows[0].system else []
    for number, row in enumerate(rows, start=1):
        side: Role = sides[row.speaker] if row.speaker is not None else ("user" if number % 2 else "assistant")
        messages.append(Message(side, clean_text(row.text, f"message {number}")))
    if need_reply and not any(message.role == "assistant" for message in messages):
        raise RejectedError(NO_REPLY, NO_REPLY_ADVICE)
    if all(message.role == "system" for message in messages):
        raise RejectedError("The conversation has no turns.", NO_REPLY_ADVICE)
    conversation = Conversation.from_messages(messages)
    if len(conversation.turns) > MAX_TURNS:
        raise RejectedError(
            f"This conversation has {len(conversation.turns):,} turns; at most {MAX_TURNS:,} are read.",
            "Split it into several ones.",
        )
    return conversation


def _assign_sides(rows: list[MessageRow], bot: str) -> dict[str | None, Role]:
    """Speaker -> side. A name that tells nothing is the assistant's if it is the second of the conversation.

    Where only "user" and "system" speak, and the system answers, the system is the assistant.
    """
    speakers = list(dict.fromkeys(row.speaker for row in rows))
    if bot and any((speaker or "").casefold() == bot.casefold() for speaker in speakers):
        return {one: "assistant" if (one or "").casefold() == bot.casefold() else "user" for one in speakers}
    sides: dict[str | None, Role] = {}
    unknown = []
    for speaker in speakers:
        side = header_words.find_role(speaker or "")
        if side is None:
            unknown.append(speaker)
        else:
            sides[speaker] = side
    found = set(sides.values())
    if "assistant" not in found and unknown:
        chosen = unknown[0] if "user" in found else unknown[1] if len(unknown) > 1 else None
        if chosen is not None:
            sides[chosen] = "assistant"
    for speaker in unknown:
        sides.setdefault(speaker, "user")
    if "assistant" not in sides.values() and "system" in found and sides[speakers[0]] == "user":
        sides = {speaker: "assistant" if side == "system" else side for speaker, side in sides.items()}
    return sides
