"""Text messages that "SMS Backup & Restore" saved as XML -> messages. Who owns the telephone is called Me."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from chat_app.data.readers.chat_exports.chat_reader import ChatReader
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.types import Problem
from chat_app.data.readers.xml_events import XmlEnd, XmlStart, iterate_xml

OWN = "Me"
RECEIVED, SENT = "1", "2"
EMPTY = ("", "null")
UNKNOWN = ("(Unknown)", "null", "")
MILLISECONDS = 1000.0
LONGEST_TIME = 15


class SmsReader(ChatReader):
    """Reads a backup of text messages."""

    @classmethod
    def sniff(cls, file: InputFile) -> SmsReader | None:
        """A reader if the file is XML whose root is that of a backup."""
        if "<smses" not in file.beginning or not file.beginning.lstrip().startswith("<"):
            return None
        return cls.survey("sms", file.name, "utf-8", file.options, partial(read_messages, file.path, file.name))


def read_messages(path: Path, name: str) -> Iterator[ChatMessage | Problem]:
    """The messages of everyone, one number after the other, the oldest of each first."""
    chats: dict[str, list[ChatMessage]] = {}
    for message in _read_all(path, name):
        chats.setdefault(message.chat, []).append(message)
    for messages in chats.values():
        yield from sorted(messages, key=lambda message: message.time or 0.0)


def _read_all(path: Path, name: str) -> Iterator[ChatMessage]:
    outer: XmlStart | None = None
    texts: list[str] = []
    for event in iterate_xml(path, name):
        if isinstance(event, XmlStart):
            if event.name == "sms" and (message := _build(event, event.get("type"), event.get("body"))):
                yield message
            elif event.name == "mms":
                outer, texts = event, []
            elif event.name == "part" and outer is not None and event.get("ct") == "text/plain":
                texts.append(event.get("text"))
        elif isinstance(event, XmlEnd) and event.name == "mms" and outer is not None:
            body = "\n".join(text for text in texts if text not in EMPTY)
            if message := _build(outer, outer.get("msg_box"), body):
                yield message
            outer = None


def _build(event: XmlStart, box: str, body: str) -> ChatMessage | None:
    if box not in (RECEIVED, SENT) or body.strip() in EMPTY:
        return None
    address = event.get("address")
    contact = event.get("contact_name")
    author = OWN if box == SENT else address if contact in UNKNOWN else contact
    date = event.get("date")
    time = int(date) / MILLISECONDS if date.isdecimal() and len(date) < LONGEST_TIME else None
    chat = "".join(sign for sign in address if sign.isalnum())[-9:]
    return ChatMessage(time, " ".join(author.split()) or "Unknown", body.strip(), event.line, chat)
