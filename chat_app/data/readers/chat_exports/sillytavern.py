"""A chat that SillyTavern or TavernAI keeps as JSON Lines -> messages; the characters are the assistant.

Of several answers to one message the chosen one is in the file. Hidden messages are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from chat_app.data.readers.chat_exports.chat_reader import ChatReader
from chat_app.data.readers.chat_exports.fields import get_name
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.json.items import iterate_objects
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.text_source import Source
from chat_app.data.readers.types import Problem

MACRO = re.compile(r"\{\{(user|char)\}\}", re.IGNORECASE)


class SillyTavernReader(ChatReader):
    """Reads a chat of SillyTavern."""

    @classmethod
    def sniff(cls, file: InputFile) -> SillyTavernReader | None:
        """A reader if the lines are messages as this program keeps them."""
        head = file.beginning
        if not head.startswith("{") or '"mes"' not in head or '"is_user"' not in head:
            return None
        source = file.source
        return cls.survey("sillytavern", file.name, source.encoding, file.options, partial(read_messages, source))


def read_messages(source: Source) -> Iterator[ChatMessage | Problem]:
    """The messages; a chat goes on for weeks, so their times are left out."""
    user = character = ""
    for found in iterate_objects(source, "Delete it, or export the chat again."):
        if isinstance(found, Problem):
            yield found
            continue
        number, item = found
        user, character = get_name(item, "user_name") or user, get_name(item, "character_name") or character
        message = _read_message(item, number, user, character)
        if message is not None:
            yield message


def _read_message(item: dict[str, Any], number: int, user: str, character: str) -> ChatMessage | None:
    text = item.get("mes")
    if not isinstance(text, str) or not text.strip() or item.get("is_system") is True:
        return None
    by_user = item.get("is_user") is True
    name = get_name(item, "name") or (user if by_user else character) or ("User" if by_user else "Character")
    names = {"user": user or "User", "char": character or name}
    text = MACRO.sub(lambda match: names[match[1].lower()], text)
    return ChatMessage(None, name, text.strip(), number, by_bot=not by_user)
