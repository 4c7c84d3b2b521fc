"""A chat that imessage-exporter wrote as text -> messages: a time, below it who writes, below that the text.

Passed over are tapbacks, attachments, and the copies of replies that stand indented below what they answer.
"""

from __future__ import annotations

import re

from chat_app.data.readers.chat_exports.clock_times import parse_clock, parse_day
from chat_app.data.readers.chat_exports.line_log import Begun, LineLogReader, sample_lines
from chat_app.data.readers.protocol import InputFile

HEAD = re.compile(
    r"(\s*)([A-Z][a-z]{2} \d{1,2}, \d{4})\s+(\d{1,2}:\d{2}:\d{2} [AP]M)"
    r"(?: \((?:Read|Delivered|Edited)[^()\n]*\))?(\s.*)?"
)
END = re.compile(r"(?:Tapbacks|Stickers):\s*")
ATTACHMENT = re.compile(r"(?:attachments/|/|~/|[A-Z]:\\)[^\n]*\.\w{2,5}|\ufffc+")
NOT_SAID = ("This message responded to an earlier message.", "This message was deleted from the conversation!")
EFFECT = re.compile(r"Sent with [A-Z][\w ]{2,30}|Edited .{1,40} later:?.*|.{1,60} unsent this message part .*")


class IMessageReader(LineLogReader):
    """Reads a chat that imessage-exporter wrote as text."""

    @classmethod
    def sniff(cls, file: InputFile) -> IMessageReader | None:
        """A reader if the first line is a time as this program writes it, and a name stands below."""
        start = file.beginning.lstrip("\r\n").split("\n")[:2]
        if len(start) < 2 or not HEAD.fullmatch(start[0].strip("\r")):
            return None
        lines = sample_lines(file)
        return cls.open_log("imessage", file, IMessageParser) if _count_heads(lines) > 1 else None


class IMessageParser:
    """Finds the times of messages; the line below each is the author."""

    def __init__(self) -> None:
        self._time: float | None = None
        self._awaits_author = self._passes = False

    def parse(self, line: str) -> Begun | None:
        """A message without text, which stands on the lines below; what is indented is a copy."""
        match = HEAD.fullmatch(line)
        if match:
            day, clock = parse_day(match[2]), parse_clock(match[3])
            self._time = None if day is None else day + (clock or 0)
            # A notice stands on the line of its time: "Anna named the conversation Bread".
            self._awaits_author = not match[1] and not (match[4] or "").strip()
            self._passes = not self._awaits_author
            return Begun()
        if self._awaits_author and line.strip():
            self._awaits_author = False
            return Begun(" ".join(line.split()), "", self._time)
        if END.fullmatch(line):
            self._passes = True
        return Begun() if self._passes else None

    def clean(self, text: str) -> str:
        """The text without the names of files and what the program says of it."""
        lines = [line for line in text.split("\n") if not ATTACHMENT.fullmatch(line.strip())]
        return "\n".join(line for line in lines if line.strip() not in NOT_SAID and not EFFECT.fullmatch(line)).strip()


def _count_heads(lines: list[str]) -> int:
    return sum(HEAD.fullmatch(line) is not None for line in lines)
