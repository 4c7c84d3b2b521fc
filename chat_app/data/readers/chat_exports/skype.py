"""Skype's export (messages.json) -> messages. In each chat the newest stands first; texts hold HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from chat_app.data.readers.chat_exports.chat_reader import ChatReader
from chat_app.data.readers.chat_exports.fields import ADVICE, convert_messages, get_list, get_name, get_text, parse_time
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.json.document import parse_document
from chat_app.data.readers.json.items import looks_like_json
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.types import Problem, RejectedError

SPOKEN = ("Text", "RichText")
DROPPED = re.compile(r"<(quote|c_i|URIObject)\b.{0,5000}?</\1>|<e_m\b[^<>]{0,500}>(?:</e_m>)?", re.DOTALL)
BREAK = re.compile(r"<br\s*/?>|</p>|</div>", re.IGNORECASE)
TAG = re.compile(r"</?[A-Za-z][^<>]{0,2000}>")


class SkypeReader(ChatReader):
    """Reads Skype's export."""

    @classmethod
    def sniff(cls, file: InputFile) -> SkypeReader | None:
        """A reader if the file is JSON with lists of messages as Skype writes them."""
        if not looks_like_json(file) or '"conversations"' not in file.beginning:
            return None
        value = parse_document(file)
        if not is_skype_export(value):
            return None
        source = file.source
        return cls.survey("skype", file.name, source.encoding, file.options, partial(read_chats, value, file.name))


def is_skype_export(value: Any) -> bool:
    """Whether a JSON value is Skype's export."""
    chats = value.get("conversations") if isinstance(value, dict) else None
    return isinstance(chats, list) and any(isinstance(chat, dict) and "MessageList" in chat for chat in chats)


def read_chats(value: dict[str, Any], file: str) -> Iterator[ChatMessage | Problem]:
    """The messages of all chats, the oldest of each first; a message's line is its number in the export."""
    chats = [chat for chat in value["conversations"] if isinstance(chat, dict)]
    own = get_name(value, "userId")
    names = {get_name(chat, "id"): get_name(chat, "displayName") for chat in chats}
    before = 0
    for number, chat in enumerate(chats, start=1):
        try:
            items = get_list(chat, "MessageList")
        except RejectedError as rejected:
            yield Problem(file, None, f"Chat {number:,} cannot be read: {rejected.reason}", rejected.advice)
            continue
        read = partial(_parse_message, names=names, own=own, chat=str(number))
        found = list(convert_messages(items, file, read, before=before))
        before += len(items)
        yield from (item for item in found if isinstance(item, Problem))
        said = [item for item in reversed(found) if isinstance(item, ChatMessage)]
        yield from sorted(said, key=lambda message: message.time or 0.0)


def _parse_message(
    item: dict[str, Any], number: int, *, names: dict[str, str], own: str, chat: str
) -> ChatMessage | None:
    if item.get("messagetype") not in SPOKEN:
        return None
    text = render_text(get_text(item, "content"))
    if not text:
        return None
    account = get_name(item, "from")
    bare = account.partition(":")[2].removeprefix("live:") or account
    name = get_name(item, "displayName") or ("" if account == own else names.get(account, "")) or bare
    if not name:
        raise RejectedError("It has no author.", ADVICE)
    return ChatMessage(parse_time(item, "originalarrivaltime"), name, text, number, chat, account.startswith("28:"))


def render_text(content: str) -> str:
    """A text without quotes, tags and what stands for signs."""
    if "<" in content:
        content = TAG.sub("", BREAK.sub("\n", DROPPED.sub("", content)))
    return html.unescape(content).strip()
