"""Writes conversations as JSON Lines in the one shape that reading gives back unchanged."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from chat_app.conversation import Conversation, Message
from chat_app.reading.texts import storable


def write_jsonl(conversations: Iterable[Conversation], path: str | os.PathLike[str]) -> None:
    """One conversation a line: {"messages": [{"role", "content"}]}, with "weight": 0 where a message is not learned.

    What reading gives comes back the same. Of other texts the spaces around them do not, and NUL characters and halves
    of surrogate pairs are replaced. The file appears whole or not at all.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            for conversation in conversations:
                file.write(_line(conversation))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _line(conversation: Conversation) -> bytes:
    record = {"messages": [_record(message) for message in conversation.messages]}
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _record(message: Message) -> dict[str, Any]:
    record: dict[str, Any] = {"role": message.role, "content": storable(message.text)}
    if not message.learned:
        record["weight"] = 0
    return record
