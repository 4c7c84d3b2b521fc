"""The reader of Telegram exports in JSON, of one chat or of all.

It reads messages that people wrote, and skips service messages (joined, called, pinned), media without text, and
forwarded messages, which are not the sender's own words.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from chat_app.data.readers.chat_exports.chat_reader import ChatReader
from chat_app.data.readers.chat_exports.fields import ADVICE, convert_messages, get_list, get_name, parse_time
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.json.document import parse_document
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.types import Problem, RejectedError, quote_text

CHAT_TYPES = frozenset((
    "saved_messages", "replies", "personal_chat", "bot_chat", "private_group", "private_supergroup",
    "public_supergroup", "private_channel", "public_channel", "verification_codes",
))  # fmt: skip
MESSAGE_TYPES = ("message", "service", "unsupported")
FORWARDED = ("forwarded_from", "forwarded_from_id", "saved_from")
DELETED = "Deleted account"


class TelegramReader(ChatReader):
    """Reads a Telegram export of one chat or of several."""

    @classmethod
    def sniff(cls, file: InputFile) -> TelegramReader | None:
        """A reader if the file is JSON as this program writes it."""
        value = parse_document(file)
        if not is_telegram_export(value):
            return None
        name, source = file.name, file.source
        return cls.survey("telegram", name, source.encoding, file.options, partial(read_messages, value, name))


def is_telegram_export(value: Any) -> bool:
    """Whether a JSON value is an export of one chat or of several."""
    if not isinstance(value, dict):
        return False
    chats = value.get("chats")
    if isinstance(chats, dict) and isinstance(chats.get("list"), list):
        return not chats["list"] or any(_is_chat(chat) for chat in chats["list"])
    return _is_chat(value)


def read_messages(value: Any, file: str) -> Iterator[ChatMessage | Problem]:
    """Parse the messages of all chats, one chat after the other.

    A message's line is its number in the export, counted through all chats.
    """
    several = value.get("chats")
    if not isinstance(several, dict):
        yield from _read_chat(value, file, 0, "")
        return
    before = 0
    for number, chat in enumerate(several.get("list") or [], start=1):
        if not isinstance(chat, dict) or not isinstance(chat.get("messages"), list):
            yield Problem(file, None, f"Chat {number:,} has no list of messages.", "Export it again.")
            continue
        name = get_name(chat, "name")
        of = f" of the chat {quote_text(name)}" if name else f" of chat {number:,}"
        yield from _read_chat(chat, file, before, f"{number}", of)
        before += len(chat["messages"])


def _read_chat(chat: dict[str, Any], file: str, before: int, key: str, of: str = "") -> Iterator[ChatMessage | Problem]:
    partner = chat.get("id")
    bot = f"user{partner}" if chat.get("type") == "bot_chat" and isinstance(partner, int) else None

    def read(item: dict[str, Any], number: int) -> ChatMessage | None:
        return _parse_message(item, number, key, bot)

    yield from convert_messages(chat["messages"], file, read, before=before, of=of)


def _parse_message(item: dict[str, Any], number: int, chat: str, bot: str | None) -> ChatMessage | None:
    if item.get("type") != "message" or any(item.get(key) is not None for key in FORWARDED):
        return None
    text = _join_text(item).strip()
    if not text:
        return None
    by_bot = bot is not None and item.get("from_id") == bot
    return ChatMessage(parse_time(item, "date_unixtime", "date"), _find_author(item), text, number, chat, by_bot)


def _join_text(item: dict[str, Any]) -> str:
    """The text of a message, which is a string, or a list of strings and of entities (links, mentions, bold text)."""
    text = item.get("text")
    if text is None:
        return ""
    if isinstance(text, str):
        return text
    pieces = []
    for piece in get_list(item, "text"):
        inner = piece.get("text") if isinstance(piece, dict) else piece
        if not isinstance(inner, str):
            raise RejectedError("A part of its text is not text.", ADVICE)
        pieces.append(inner)
    return "".join(pieces)


def _find_author(item: dict[str, Any]) -> str:
    """The author's name. Deleted accounts have none, and are told apart by the account's number."""
    name = get_name(item, "from")
    if name:
        return name
    if item.get("from") is not None and not isinstance(item["from"], str):
        raise RejectedError('"from" is not a name.', ADVICE)
    account = get_name(item, "from_id").removeprefix("user")
    return f"{DELETED} {account}" if account else DELETED


def _is_chat(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        return False
    if isinstance(value.get("type"), str) and value["type"] in CHAT_TYPES:
        return True
    first = next((item for item in value["messages"] if isinstance(item, dict)), {})
    return first.get("type") in MESSAGE_TYPES and ("from" in first or "actor" in first or "date_unixtime" in first)
