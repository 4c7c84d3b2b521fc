"""Chats of Signal -> messages: the Markdown that signal-export writes, and the JSON Lines of Signal's own export.

Passed over are reactions, quotes of what is answered, attachments and notices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from chat_app.data.readers.chat_exports.clock_times import parse_clock, parse_day
from chat_app.data.readers.chat_exports.fields import get_name
from chat_app.data.readers.chat_exports.line_log import Begun, LineLogReader, sample_lines
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.json.items import iterate_objects
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.text_source import Source
from chat_app.data.readers.types import Problem

LINE = re.compile(r"\[(\d{4}-\d{2}-\d{2}),? (\d{2}:\d{2}(?::\d{2})?)\] ([^:\n]{1,80}): ?(.*)")
MEDIA = re.compile(r"!?\[[^\[\]\n]*\]\((?:\./)?media/[^()\n]*\)")
REACTION = re.compile(r"\s?\(- [^()\n]{1,200} -\)\s?")
QUOTE = re.compile(r"(?m)^>.*(?:\n|\Z)")
# What tells this program's lines from WhatsApp's, which may have the same form.
MARKS = re.compile(r"(?m)\] Me: |\]\((?:\./)?media/|^\(- .* -\)|\] .{1,80}: \n>")
SHARE = 0.3
MILLISECONDS = 1000.0
MOST_IDS = 100_000


class SignalReader(LineLogReader):
    """Reads a chat that signal-export wrote as Markdown, or Signal's own export (main.jsonl)."""

    @classmethod
    def sniff(cls, file: InputFile) -> SignalReader | None:
        """A reader if the lines are those of one of the two."""
        head = file.beginning
        if head.startswith("{"):
            if '"chatItem"' not in head and not ('"recipient"' in head and '"backupTimeMs"' in head):
                return None
            source = file.source
            return cls.survey("signal", file.name, source.encoding, file.options, partial(read_frames, source))
        if not head.startswith("[") or not (MARKS.search(head) or file.name.lower().endswith(".md")):
            return None
        lines = [line for line in sample_lines(file) if line.strip()]
        found = sum(LINE.match(line) is not None for line in lines)
        return cls.open_log("signal", file, SignalParser) if lines and found >= SHARE * len(lines) else None


class SignalParser:
    """Finds messages in Markdown."""

    def parse(self, line: str) -> Begun | None:
        """A message with the first line of its text."""
        match = LINE.match(line)
        if match is None:
            return None
        day, clock = parse_day(match[1]), parse_clock(match[2])
        return Begun(" ".join(match[3].split()), match[4], None if day is None else day + (clock or 0))

    def clean(self, text: str) -> str:
        """The text without attachments, reactions and quotes."""
        return REACTION.sub("", QUOTE.sub("", MEDIA.sub("", text))).strip()


def read_frames(source: Source) -> Iterator[ChatMessage | Problem]:
    """The messages of Signal's own export, whose first lines say who is who."""
    names: dict[str, str] = {}
    for found in iterate_objects(source, "Export the chats again."):
        if isinstance(found, Problem):
            yield found
            continue
        number, frame = found
        if isinstance(frame.get("recipient"), dict) and len(names) < MOST_IDS:
            names[str(frame["recipient"].get("id"))] = _find_name(frame["recipient"])
        item = frame.get("chatItem")
        if isinstance(item, dict) and (message := _read_item(item, names, number)):
            yield message


def _find_name(recipient: dict[str, Any]) -> str:
    if isinstance(recipient.get("self"), dict):
        return "Me"
    contact = recipient.get("contact")
    contact = contact if isinstance(contact, dict) else {}
    nickname = contact.get("nickname")
    given = get_name(nickname, "given") if isinstance(nickname, dict) else ""
    profile = " ".join(part for key in ("profileGivenName", "profileFamilyName") if (part := get_name(contact, key)))
    return given or get_name(contact, "systemGivenName") or profile or get_name(contact, "e164", "username", "aci")


def _read_item(item: dict[str, Any], names: dict[str, str], number: int) -> ChatMessage | None:
    standard = item.get("standardMessage")
    text = standard.get("text") if isinstance(standard, dict) else None
    body = text.get("body") if isinstance(text, dict) else None
    author = "Me" if isinstance(item.get("outgoing"), dict) else names.get(str(item.get("authorId")), "")
    if not isinstance(body, str) or not body.strip() or not author:
        return None
    return ChatMessage(_to_seconds(item.get("dateSent")), author, body.strip(), number, str(item.get("chatId")))


def _to_seconds(value: Any) -> float | None:
    """Milliseconds as seconds; Signal writes them as digits in a text."""
    text = str(value)
    return int(text) / MILLISECONDS if text.isdecimal() and len(text) < 16 else None
