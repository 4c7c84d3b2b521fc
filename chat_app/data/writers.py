"""Writes conversations as JSON Lines, which keeps everything, or as a tab-separated table for spreadsheets."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from chat_app.conversation import Conversation, Message
from chat_app.data.readers.tables.columns import MAX_COLUMNS
from chat_app.data.readers.turn_text import TURN_SEPARATOR, replace_unstorable

HEADER = b"context\treply\n"
# The beginning of a cell that a spreadsheet takes for a formula; an apostrophe before it makes it text.
FORMULA = re.compile(r"'*[=+\-@\x00-\x1f]")
LONELY = re.compile(rf"(?<= ){TURN_SEPARATOR.strip()}(?= )")
LINE_ENDS = re.compile(r"\r\n|[\t\r\n]")


def write_jsonl(conversations: Iterable[Conversation], path: str | os.PathLike[str]) -> None:
    """Write JSON Lines: {"messages": [{"role", "content"}]}, with "weight": 0 for a message outside the loss.

    Conversations that came from a reader are read back unchanged. Of other texts, the spaces around them are lost, and
    NUL characters and lone surrogates are replaced. The file is written atomically.

    Raises:
        OSError: the file cannot be written.
    """
    with _atomic_file(path) as file:
        for conversation in conversations:
            file.write(_encode(conversation))


def write_tsv(conversations: Iterable[Conversation], path: str | os.PathLike[str]) -> int:
    """Write a tab-separated table with a header: each line is a context, whose turns ` EOS ` separates, and a reply.

    A conversation with ` EOS ` inside a text is written with one turn per column or, if it has only two turns, with
    ` eos ` instead. Tabs and line feeds become spaces. A cell that a spreadsheet would take for a formula gets an
    apostrophe, which reading removes, and one that begins with a quote gets a space. The file is written atomically.

    Returns:
        The number of conversations that are not read back unchanged: those with replaced characters, with a system
        text or a turn after the last reply, which are left out, or with a reply outside the loss. Conversations without
        a reply count, too, and are not written at all.

    Raises:
        OSError: the file cannot be written.
    """
    lossy = 0
    with _atomic_file(path) as file:
        file.write(HEADER)
        for conversation in conversations:
            turns = list(conversation.turns)
            if turns[-1].role == "user":
                turns.pop()
            cells, same = _split_cells([_join_lines(turn.text) for turn in turns])
            same = same and conversation.head == () and all(turn.in_loss for turn in turns)
            same = same and [turn.text for turn in conversation.turns] == [_join_lines(turn.text) for turn in turns]
            lossy += not same
            if len(turns) > 1:
                file.write("\t".join(map(_escape_formula, cells)).encode() + b"\n")
    return lossy


def _split_cells(texts: list[str]) -> tuple[list[str], bool]:
    """The cells of a row, and whether reading them gives the same turns."""
    context = TURN_SEPARATOR.join(texts[:-1])
    if context.split(TURN_SEPARATOR) == texts[:-1]:
        return [context, texts[-1]], True
    if 2 < len(texts) <= MAX_COLUMNS:
        return texts, True
    # With two cells the first is read as a context, whose separators would split it: they are replaced, with loss.
    return [TURN_SEPARATOR.join(LONELY.sub("eos", text) for text in texts[:-1]), *texts[-1:]], False


def _join_lines(text: str) -> str:
    return LINE_ENDS.sub(" ", replace_unstorable(text)).strip()


def _escape_formula(cell: str) -> str:
    if cell.startswith('"'):
        return f" {cell}"
    return f"'{cell}" if FORMULA.match(cell) else cell


@contextmanager
def _atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A context manager for writing a file atomically: under a temporary name, renamed at the end."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _encode(conversation: Conversation) -> bytes:
    return orjson.dumps(to_record(conversation), option=orjson.OPT_APPEND_NEWLINE)


def to_record(conversation: Conversation) -> dict[str, Any]:
    """The conversation as an object for JSON: {"messages": [...]}."""
    return {"messages": [_message_record(message) for message in conversation.messages]}


def _message_record(message: Message) -> dict[str, Any]:
    record: dict[str, Any] = {"role": message.role, "content": replace_unstorable(message.text)}
    if not message.in_loss:
        record["weight"] = 0
    return record
