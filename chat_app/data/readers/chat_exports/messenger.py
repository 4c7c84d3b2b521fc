"""Chats that Facebook Messenger or Instagram exported as JSON (message_1.json and so on) -> messages.

The newest message stands first, in each file and in the first file. Texts are UTF-8 that was written as if it were
Latin-1, which is undone. Passed over are reactions, calls, unsent messages, and what only tells that something was
sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import orjson

from chat_app.data.readers.chat_exports.chat_reader import ChatReader
from chat_app.data.readers.chat_exports.fields import ADVICE, convert_messages, get_name, get_text, parse_time
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.json.document import parse
from chat_app.data.readers.json.items import looks_like_json
from chat_app.data.readers.protocol import InputFile, JoinedReader, OpenedReader
from chat_app.data.readers.types import Problem, RejectedError
from chat_app.errors import DataError

SENDER_KEYS = ("sender_name", "senderName")
MARKS = tuple(f'"{key}"' for key in SENDER_KEYS)
SPOKEN = (None, "Generic", "Share", "text", "link", "media")
MEDIA = ("photos", "videos", "audio_files", "files", "gifs", "sticker", "share", "media")
MILLISECONDS = 1000.0
# What stands instead of a text. {who} is the sender's name, or You.
NOTICES = (
    r"{who} sent (?:an? |\d+ )(?:attachments?|photos?|videos?|GIFs?|stickers?|voice messages?|links?"
    r"|(?:live )?location)\.?",
    r"{who} (?:unsent a message|missed (?:a|your) (?:call|video chat|audio call).*|called .{{1,60}}\."
    r"|waved at .{{1,60}}!"
    r"|started (?:a|an) (?:video|audio)? ?(?:chat|call)\.|joined the (?:video )?(?:call|chat)\."
    r"|named the group .*|left the group\.|(?:added|removed) .{{1,200}} (?:to|from) the group\.?"
    r"|set (?:the|your|his|her|their) (?:own )?(?:nickname|emoji|quick reaction).*"
    r"|changed the (?:chat |group )?(?:theme|photo|colors?).*"
    r"|created a poll.*|pinned a message\.|shared a (?:story|post|reel|location|link)\.)",
    r"{who} (?:hat|hast) (?:einen? .{{1,40}} gesendet|.{{1,100}} geändert)\.?\s?",
    r"{who} (?:a|as|avez) envoyé une? .{{1,40}}\.?\s?",
    r"{who} (?:envió|enviaste|enviou|ha inviato|heeft) .{{1,100}}"
    r"(?:adjunto|anexo|allegato|foto|vídeo|video|bijlage verzonden|gestuurd)\.?\s?",
)
# A reaction stands under the name of one of the two, and names the other.
REACTION = re.compile(
    r".{1,80} (?:reacted [^\w\s]{1,12} to .{1,80} message|(?:hat|hast) mit [^\w\s]{1,12} auf .{1,80} reagiert"
    r"|(?:a|as|avez) réagi (?:avec|par) [^\w\s]{1,12} .{1,80} message"
    r"|(?:reaccionó|reaccionaste) con [^\w\s]{1,12} .{1,80} mensaje"
    r"|(?:reagiu|reagiste) com [^\w\s]{1,12} .{1,80} mensagem|ha reagito con [^\w\s]{1,12} .{1,80} messaggio"
    r"|heeft gereageerd met [^\w\s]{1,12} op .{1,80} bericht|reageerde met [^\w\s]{1,12} op .{1,80} bericht)\s?"
)
ALWAYS = re.compile(
    r"(?:Liked a message|Liked your message|Reacted .{1,20} to your message|Message unsent|Missed (?:video|audio) call"
    r"|The (?:video|audio) (?:chat|call) ended\.|This poll is no longer available\."
    r"|You can now (?:message and )?call each other.*|Say hi to your new Facebook friend.*"
    r"|Gefällt eine Nachricht|Hat mit .{1,20} auf deine Nachricht reagiert)\s?"
)
AGAIN = "Ask for the export again, as JSON."


class MessengerReader(JoinedReader):
    """Reads one chat or all chats that Messenger or Instagram exported."""

    @classmethod
    def sniff(cls, file: InputFile) -> MessengerReader | None:
        """A reader if the file begins as a chat of this export does."""
        head = file.beginning
        if not looks_like_json(file) or '"participants"' not in head or '"messages"' not in head:
            return None
        return cls(file) if any(mark in head for mark in MARKS) or '"thread_path"' in head else None

    @classmethod
    def join(cls, files: Sequence[InputFile]) -> Sequence[OpenedReader]:
        """One reader of all files; those of one chat are one chat."""
        chats: dict[str, list[InputFile]] = {}
        for file in files:
            chats.setdefault(_find_chat(_parse(file), file.name), []).append(file)
        first = files[0]
        folder = first.name.rpartition("/")[0] if len(files) > 1 else ""
        name = (folder.partition("/")[0] or f"{first.name} and others") if len(files) > 1 else first.name
        read = partial(read_chats, chats)
        return [ChatReader.survey("messenger", name, first.source.encoding, first.options, read)]


def read_chats(chats: dict[str, list[InputFile]]) -> Iterator[ChatMessage | Problem]:
    """The messages of all chats, the oldest of each first. One chat is in memory at a time."""
    for key, files in chats.items():
        said: list[ChatMessage] = []
        for file in files:
            value = _parse(file)
            fixed = "thread_path" not in value and "threadName" in value
            for item in read_messages(value, file.name, key, mojibake=not fixed):
                if isinstance(item, Problem):
                    yield item
                else:
                    said.append(item)
        # Within one millisecond the order of the files decides, where the later message stands first.
        said.reverse()
        yield from sorted(said, key=lambda message: message.time or 0.0)


def read_messages(
    value: dict[str, Any], file: str, chat: str = "", *, mojibake: bool = True
) -> Iterator[ChatMessage | Problem]:
    """The messages of one file as they stand there; a message's line is its number in the file."""

    def read(item: dict[str, Any], number: int) -> ChatMessage | None:
        return _parse_message(item, number, chat, file, mojibake)

    yield from convert_messages(value["messages"], file, read)


def repair_encoding(text: str) -> str:
    """Text whose bytes of UTF-8 were taken for signs of Latin-1, as it was written; other text as it is."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _parse_message(item: dict[str, Any], number: int, chat: str, file: str, mojibake: bool) -> ChatMessage | None:
    if item.get("type") not in SPOKEN or item.get("is_unsent") is True or item.get("isUnsent") is True:
        return None
    if "call_duration" in item:
        return None
    text = get_text(item, "content") or get_text(item, "text")
    author = get_name(item, *SENDER_KEYS)
    if mojibake:
        text, author = repair_encoding(text), " ".join(repair_encoding(author).split())
    text = text.strip()
    if not text or is_notice(text, author):
        return None
    if not author:
        raise RejectedError("It has no author.", ADVICE)
    time = parse_time(
        {key: _to_seconds(item.get(key)) for key in ("timestamp_ms", "timestamp")}, "timestamp_ms", "timestamp"
    )
    return ChatMessage(time, author, text, number, chat, file=file)


def is_notice(text: str, author: str) -> bool:
    """Whether the program wrote a text, and not its author."""
    if len(text) > 400 or "\n" in text:
        return False
    if ALWAYS.fullmatch(text) or REACTION.fullmatch(text):
        return True
    who = f"(?:You|Du|Vous|Tu|{re.escape(author)})"
    starts = text.startswith(("You ", "Du ", "Vous ", "Tu ", f"{author} "))
    return starts and any(re.fullmatch(notice.format(who=who), text, re.IGNORECASE) for notice in NOTICES)


def _to_seconds(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value / MILLISECONDS if is_number else value


def _parse(file: InputFile) -> dict[str, Any]:
    value = parse(file.source)
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        raise DataError("This chat has no list of messages.", where=file.name, advice=AGAIN)
    return value


def _find_chat(value: dict[str, Any], name: str) -> str:
    """What all files of one chat have in common."""
    for key in ("thread_path", "threadName"):
        if isinstance(value.get(key), str) and value[key]:
            return str(value[key])
    people = orjson.dumps(value.get("participants"), default=str).decode()
    return f"{name.rpartition('/')[0]} {value.get('title')} {people}"
