"""Rows of messages that say which message they answer -> conversations. Knows ids and who answers whom; knows no files.

Messages and their answers are trees. Every way from a first message to a last answer is a conversation; what several
ways share is learned once. Where the answers of a message are ranked, only the best of them is followed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from chat_app.conversation import Conversation, Message, Role
from chat_app.data.readers.tables import header_words
from chat_app.data.readers.tables.cells import parse_verdict
from chat_app.data.readers.turn_text import MAX_TURNS, clean_text
from chat_app.data.readers.types import Located, Note, Part, Problem, RejectedError

# So much is kept in memory to find the message that another one answers; then the next part of a file begins.
MAX_ROWS = 300_000
MAX_CHARACTERS = 60_000_000
# Of the messages that a second way shares with the first, so many stand before what is new.
SHARED_TURNS = 20
REMOVED = frozenset(("[deleted]", "[removed]", "[deleted by user]"))
CUT = "This file is so long that it was read in parts: a talk over their border became two."
SAVE_SORTED = "Sort the rows by conversation if that matters."


class ThreadRow(NamedTuple):
    """One message: its own id, that of what it answers ("" for none), and a rank among the answers, the best lowest."""

    line: int
    key: str
    parent: str
    speaker: str
    text: str
    order: Any
    rank: float | None
    part: Part


@dataclass(slots=True)
class _Node:
    """A message with the answers that it got."""

    row: ThreadRow
    answers: list[_Node] = field(default_factory=list)
    is_told: bool = False


def read_conversations(
    rows: Iterable[ThreadRow | Problem], file: str, bot: str = "", *, inbound: bool = False, need_reply: bool = True
) -> Iterator[Located | Problem]:
    """The conversations in the order of their first messages, each at the line of the first.

    Args:
        rows: the messages in any order.
        file: what to call the file to the person.
        bot: the name of the assistant; without it, the side of the firm, or who answers first.
        inbound: the speaker is a yes or no: whether a customer wrote the message.
        need_reply: False also takes messages that nobody answers.
    """
    kept: list[ThreadRow] = []
    characters, cut, alone = 0, False, 0
    for row in rows:
        if isinstance(row, Problem):
            yield row
            continue
        kept.append(row)
        characters += len(row.text)
        if len(kept) >= MAX_ROWS or characters >= MAX_CHARACTERS:
            alone += yield from _read_part(kept, file, bot, inbound, need_reply)
            kept, characters, cut = [], 0, True
    alone += yield from _read_part(kept, file, bot, inbound, need_reply)
    if alone:
        what = "1 message was" if alone == 1 else f"{alone:,} messages were"
        yield Note(file, None, f"{what} passed over, because nobody answers there.", "Nothing has to be done.")
    if cut:
        yield Note(file, None, CUT, SAVE_SORTED)


def _read_part(
    rows: list[ThreadRow], file: str, bot: str, inbound: bool, need_reply: bool
) -> Generator[Located | Problem, None, int]:
    """Yields the conversations of rows that are all known; returns how many messages stand alone."""
    alone = 0
    for root in _build_trees(rows):
        for path in _iterate_paths(root):
            told = [node for node in path if node.row.text.strip() not in REMOVED and node.row.text.strip()]
            if not told or (need_reply and len(told) < 2):
                alone += len(told)
                continue
            try:
                found = _build_conversation(told, bot, inbound, need_reply)
                yield Located(found, told[0].row.line, file, told[0].row.part)
            except RejectedError as rejected:
                yield Problem(file, told[0].row.line, rejected.reason, rejected.advice)
            for node in told:
                node.is_told = True
    return alone


def _build_trees(rows: list[ThreadRow]) -> list[_Node]:
    """The first messages, each with all that follows from it. A message that answers itself in a circle is a first."""
    nodes: dict[str, _Node] = {}
    every = [_Node(row) for row in rows]
    for node in every:
        nodes.setdefault(node.row.key, node)
    roots: list[_Node] = []
    for node in every:
        before = nodes.get(node.row.parent) if node.row.parent else None
        if before is None or before is node:
            roots.append(node)
        else:
            before.answers.append(node)
    reached = _mark_reached(roots)
    for node in every:
        if id(node) not in reached:
            nodes[node.row.parent].answers.remove(node)
            roots.append(node)
            reached |= _mark_reached([node])
    for node in every:
        node.answers.sort(key=_sort_key)
    return sorted(roots, key=lambda node: node.row.line)


def _mark_reached(roots: list[_Node]) -> set[int]:
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if id(node) not in found:
            found.add(id(node))
            waiting += node.answers
    return found


def _sort_key(node: _Node) -> tuple[bool, float, str, float, int]:
    row = node.row
    order = row.order
    number = float(order) if isinstance(order, int | float) else 0.0
    return (
        row.rank is None,
        row.rank or 0.0,
        "" if isinstance(order, int | float) else str(order or ""),
        number,
        row.line,
    )


def _iterate_paths(root: _Node) -> Iterator[list[_Node]]:
    """Every way from the first message to one that nobody answers; of ranked answers only the best is followed."""
    path: list[tuple[_Node, Iterator[_Node]]] = [(root, iter(_choose_answers(root)))]
    deeper = True
    while path:
        following = next(path[-1][1], None)
        if following is not None:
            path.append((following, iter(_choose_answers(following))))
            deeper = True
            continue
        if deeper:
            yield _take_end([node for node, _ in islice(reversed(path), MAX_TURNS + SHARED_TURNS)])
            deeper = False
        path.pop()


def _take_end(backwards: list[_Node]) -> list[_Node]:
    """The new messages at the end of a way, in their order, after a few of those that an earlier one has told."""
    new = next((place for place, node in enumerate(backwards) if node.is_told), len(backwards))
    return backwards[: new + SHARED_TURNS][::-1]


def _choose_answers(node: _Node) -> list[_Node]:
    """The answers to follow."""
    if len(node.answers) > 1 and node.answers[0].row.rank is not None:
        return node.answers[:1]
    return node.answers


def _build_conversation(path: list[_Node], bot: str, inbound: bool, need_reply: bool) -> Conversation:
    rows = [node.row for node in path]
    if len(rows) > MAX_TURNS:
        raise RejectedError(
            f"This conversation has {len(rows):,} messages; at most {MAX_TURNS:,} are read.", "Split it into several."
        )
    sides = _assign_sides(rows, bot, inbound)
    messages = [
        Message(side, clean_text(node.row.text, "the message"), not (node.is_told and side == "assistant"))
        for node, side in zip(path, sides, strict=True)
    ]
    if need_reply and not any(message.role == "assistant" and message.in_loss for message in messages):
        raise RejectedError("The assistant says nothing in this talk.", "Say who the bot is (--bot NAME).")
    return Conversation.from_messages(messages)


def _assign_sides(rows: list[ThreadRow], bot: str, inbound: bool) -> list[Role]:
    """The side of each message: by what the speaker is called, else who began is the user, and who answers the bot.

    A third person takes the side that was not last to speak.
    """
    if bot and any(row.speaker.casefold() == bot.casefold() for row in rows):
        return ["assistant" if row.speaker.casefold() == bot.casefold() else "user" for row in rows]
    if inbound:
        return ["assistant" if parse_verdict(row.speaker) is False else "user" for row in rows]
    known: dict[str, Role] = {}
    sides: list[Role] = []
    for row in rows:
        side = known.get(row.speaker) if row.speaker else None
        if side is None:
            side = header_words.find_role(row.speaker) or ("user" if not sides or sides[-1] != "user" else "assistant")
            if row.speaker:
                known[row.speaker] = side
        sides.append(side)
    return sides
