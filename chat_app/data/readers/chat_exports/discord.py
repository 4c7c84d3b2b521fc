"""The reader of Discord channels in the JSON format of DiscordChatExporter.

It reads ordinary messages and replies, and skips notices (joined, pinned, called) and messages without text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from chat_app.data.readers.chat_exports.chat_reader import ChatReader
from chat_app.data.readers.chat_exports.fields import (
    ADVICE,
    convert_messages,
    get_list,
    get_name,
    get_record,
    get_text,
    parse_time,
)
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.json.document import parse_document
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.types import Problem, RejectedError

SPOKEN = ("Default", "Reply")
# <@123>, <@!123>, <@&123> (a role), <#123> (a channel), <:smile:123>, <a:dance:123>, </command:123>, <t:123:R>.
MARKUP = re.compile(r"<(?:(@[!&]?|#)(\d{1,20})|a?(:\w{1,40}:)\d{1,20}|(/[\w -]{1,100}):\d{1,20}|t:-?\d{1,15}(?::\w)?)>")
UNKNOWN = {"@": "@somebody", "@!": "@somebody", "@&": "@role", "#": "#channel"}


class DiscordReader(ChatReader):
    """Reads a channel that DiscordChatExporter wrote as JSON."""

    @classmethod
    def sniff(cls, file: InputFile) -> DiscordReader | None:
        """A reader if the file is JSON as this program writes it."""
        value = parse_document(file)
        if not is_discord_export(value):
            return None
        name, source = file.name, file.source
        return cls.survey("discord", name, source.encoding, file.options, partial(read_messages, value, name))


def is_discord_export(value: Any) -> bool:
    """Whether a JSON value is a channel as DiscordChatExporter writes it."""
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        return False
    return isinstance(value.get("channel"), dict) and ("guild" in value or "exportedAt" in value)


def read_messages(value: Any, file: str) -> Iterator[ChatMessage | Problem]:
    """The messages of the channel; a message's line is its number in the export."""
    yield from convert_messages(value["messages"], file, _parse_message)


def _parse_message(item: dict[str, Any], number: int) -> ChatMessage | None:
    if item.get("type") not in SPOKEN:
        return None
    text = get_text(item, "content")
    if "<" in text:
        text = _render_markup(text, _read_mentions(item))
    text = text.strip()
    if not text:
        return None
    author = get_record(item, "author")
    name = get_name(author, "nickname", "name")
    if not name:
        raise RejectedError("It has no author.", ADVICE)
    return ChatMessage(parse_time(item, "timestamp"), name, text, number, by_bot=author.get("isBot") is True)


def _read_mentions(item: dict[str, Any]) -> dict[str, str]:
    """The accounts that the message mentions, with their names."""
    people = [person for person in get_list(item, "mentions") if isinstance(person, dict)]
    return {get_name(person, "id"): get_name(person, "nickname", "name") for person in people}


def _render_markup(text: str, names: dict[str, str]) -> str:
    """The text with mentions and emoji as Discord shows them; timestamps, which depend on the viewer, are removed."""

    def shown(match: re.Match[str]) -> str:
        kind, account, emoji, command = match.groups()
        if kind is None:
            return emoji or command or ""
        name = names.get(account) if kind in ("@", "@!") else None
        return f"@{name}" if name else UNKNOWN[kind]

    return MARKUP.sub(shown, text)
