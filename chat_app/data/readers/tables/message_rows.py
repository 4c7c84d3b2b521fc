"""Groups rows of one message each into conversations, by id, by order and by pauses, and assigns the roles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple

from chat_app.conversation import Conversation, Message, Role
from chat_app.data.readers.tables import header_words
from chat_app.data.readers.turn_text import MAX_TURNS, check_count, clean_text
from chat_app.data.readers.types import Located, Part, Problem, RejectedError

# Rows of several conversations may be interleaved, as in a log. These bound how many are collected at a time.
MAX_OPEN = 2_000
MAX_OPEN_CHARACTERS = 50_000_000
MAX_ROWS = 2 * MAX_TURNS
ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")
NO_REPLY = "The assistant says nothing in this conversation."
NO_REPLY_ADVICE = "Check the column with the speakers, or say who the bot is."


class MessageRow(NamedTuple):
    """A row with a message.

    Attributes:
        line: the number of the row.
        key: the id of the conversation; None if the table has no ids.
        speaker: the speaker's name; None if the table has no speakers.
        text: the message.
        order: a time or a number to sort by, or None.
        part: the part of the data set.
        system: the system text, or an empty text.
    """

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
    """Group rows into conversations. A conversation's line is that of its first message.

    Rows with the same id belong together, also if they are interleaved with others: the 2,000 conversations with the
    most recent rows are kept open. If an id returns later than that, or its numbering restarts, a new conversation
    begins. Without ids a conversation ends where the numbering restarts, after a pause, at an empty row, and after
    2,000 messages.

    Args:
        rows: the messages; problems among them are yielded in their place.
        file: the name to show for the file.
        bot: the speaker who becomes the assistant; empty to guess.
        pause: minutes of silence that end a conversation without an id.
        need_reply: False also yields conversations without a reply.
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
        opened[key] = current  # Now the most recent one.
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
    """The key to sort rows by: a number, or a time without its time zone; None if the cell is neither."""
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
        rows = sorted(rows, key=lambda row: row.order)  # stable: rows of the same second keep their order
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
    check_count(len(conversation.turns))
    return conversation


def _assign_sides(rows: list[MessageRow], bot: str) -> dict[str | None, Role]:
    """Assign roles to the speakers by their names.

    If no name is an assistant's, an unknown speaker becomes the assistant: the second one, or the first if another name
    is a user's.

    Where only "user" and "system" speak, and the user is first, the system is the assistant.
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
