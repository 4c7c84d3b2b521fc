"""Google Chat as Takeout exports it (Groups/.../messages.json) -> messages. Topics of a space are followed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from chat_app.data.readers.chat_exports.clock_times import parse_clock, parse_day
from chat_app.data.readers.chat_exports.fields import ADVICE, convert_messages, get_name, get_record, get_text
from chat_app.data.readers.chat_exports.joined_chat import JoinedChatReader
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.json.document import parse
from chat_app.data.readers.json.items import looks_like_json
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.types import Problem, RejectedError
from chat_app.errors import DataError

AT = " at "


class GoogleChatReader(JoinedChatReader):
    """Reads messages.json of Google Chat."""

    kind = "google_chat"

    @classmethod
    def sniff(cls, file: InputFile) -> GoogleChatReader | None:
        """A reader if the file begins as Google's list of messages does."""
        head = file.beginning
        known = looks_like_json(file) and '"messages"' in head and '"creator"' in head and '"created_date"' in head
        return cls(file) if known else None

    @classmethod
    def read_chats(cls, files: Sequence[InputFile]) -> Iterator[ChatMessage | Problem]:
        """The messages of all files; the answers of a topic stand below its first message."""
        for file in files:
            value = parse(file.source)
            if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
                raise DataError("This chat has no list of messages.", where=file.name, advice="Export it again.")
            yield from _order_topics(read_messages(value, file.name), value["messages"], file.name)


def read_messages(value: dict[str, Any], file: str) -> Iterator[ChatMessage | Problem]:
    """The messages of one file as they stand there; a message's line is its number."""

    def read(item: dict[str, Any], number: int) -> ChatMessage | None:
        text = get_text(item, "text").strip()
        if not text or item.get("message_state") == "DELETED":
            return None
        creator = get_record(item, "creator")
        name = get_name(creator, "name", "email")
        if not name:
            raise RejectedError("It has no author.", ADVICE)
        return ChatMessage(_parse_date(get_text(item, "created_date")), name, text, number, file,
                           creator.get("user_type") == "Bot", file)  # fmt: skip

    yield from convert_messages(value["messages"], file, read)


def _order_topics(
    found: Iterator[ChatMessage | Problem], items: list[Any], file: str
) -> Iterator[ChatMessage | Problem]:
    """A topic in which several messages stand is a chat of its own; all others go on with each other."""
    topics = [item.get("topic_id") if isinstance(item, dict) else None for item in items]
    counts = Counter(topic for topic in topics if isinstance(topic, str))
    chats: dict[str, list[ChatMessage]] = {file: []}
    for item in found:
        if isinstance(item, Problem):
            yield item
            continue
        topic = topics[item.line - 1]
        own = isinstance(topic, str) and counts[topic] > 1 and len(counts) > 1
        chat = f"{file} {topic}" if own else file
        chats.setdefault(chat, []).append(
            ChatMessage(item.time, item.author, item.text, item.line, chat, item.by_bot, item.file)
        )
    for messages in chats.values():
        yield from messages


def _parse_date(text: str) -> float | None:
    """Seconds since 1970 of "Monday, January 1, 2024 at 10:00:00 AM UTC"; only differences count."""
    day, _, clock = text.replace("\u202f", " ").rpartition(AT)
    date = parse_day(day or text)
    seconds = parse_clock(clock.removesuffix("UTC"))
    return None if date is None else date + (seconds or 0.0)
