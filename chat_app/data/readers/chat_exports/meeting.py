"""Transcripts and chats of meetings -> messages: Zoom, Teams, Otter and others, where a line names who speaks and when,
and the words follow it or stand below.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial

from chat_app.data.readers.chat_exports.clock_times import parse_clock
from chat_app.data.readers.chat_exports.line_log import Begun, LineLogReader, sample_lines
from chat_app.data.readers.protocol import InputFile

CLOCK = r"(?P<clock>\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,3})?)?(?: ?[AaPp]\.?[Mm]\.?)?)"
NAME = r"(?P<name>[^\W\d_][^\n\t:<>\[\]{}|\"]{0,59}?)"
# Zoom's chat in the cloud: 00:03:15<tab>Anna:<tab>text
CLOUD_CHAT = re.compile(rf"{CLOCK}\t{NAME}:\t?(?P<text>.*)")
STYLES = (
    # Zoom's chat: 10:00:00 From Anna to Everyone: ..., the text there or on the lines below
    re.compile(
        rf"{CLOCK}[ \t]+(?:From|Von|De|Da|Van|От)[ \t]+{NAME}(?:[ \t]+(?:to|an|à|a|para|aan)[ \t]+[^\n:]{{1,80}}?)?"
        r"[ \t]?(?:\((?:Direct Message|Privately)\))?[ \t]?:(?P<text>.*)"
    ),
    CLOUD_CHAT,
    # [Anna] 10:00:01, the text below
    re.compile(rf"\[(?P<name>[^\W\d_][^\[\]\n]{{0,59}})\] {CLOCK}(?P<text>)"),
    # [10:00 AM] Anna, the text below
    re.compile(rf"\[(?:[^\[\]\n]{{1,20}} )?{CLOCK}\] {NAME}(?P<text>)"),
    # Anna  0:03 (Otter, Teams, Rev), the text below
    re.compile(rf"{NAME}(?:[ \t]{{2,}}| [|·•-] |\t| \(|: \(){CLOCK}\)?[ \t]*:?(?P<text>)"),
)
MOST_WORDS = 6
NOT_SAID = re.compile(r"(?:Reacted to|Removed a .{1,8} reaction from|Hat auf) .*|Replying to \"[^\n]*\"", re.DOTALL)
FOOTER = re.compile(r"Transcribed by https?://\S+")
REPLY = re.compile(r"\s*Replying to \"[^\"\n]*\"\s*\n")
FEWEST = 2
HEADS_SHARE, LINES_SHARE = 0.2, 0.6


class MeetingReader(LineLogReader):
    """Reads the transcript or the chat of a meeting."""

    @classmethod
    def sniff(cls, file: InputFile) -> MeetingReader | None:
        """A reader if lines with a name and a time stand all over the text, and two people speak."""
        if file.beginning.lstrip()[:1] == "{":
            return None
        lines = [line.rstrip() for line in sample_lines(file)]
        said = sum(bool(line.strip()) for line in lines)
        for style in STYLES:
            names = Counter(match["name"].strip() for line in lines if (match := style.fullmatch(line)))
            share = LINES_SHARE if style is CLOUD_CHAT else HEADS_SHARE
            enough = names.total() >= share * said
            if len(names) >= FEWEST and enough and all(len(name.split()) <= MOST_WORDS for name in names):
                return cls.open_log("meeting", file, partial(MeetingParser, style))
        return None


class MeetingParser:
    """Finds who begins to speak."""

    def __init__(self, style: re.Pattern[str]):
        self._style = style

    def parse(self, line: str) -> Begun | None:
        """A speaker with the text of this line; None for a line that goes on."""
        match = self._style.fullmatch(line.rstrip())
        if match is None:
            return None
        return Begun(" ".join(match["name"].split()), match["text"].strip(), parse_clock(match["clock"]))

    def clean(self, text: str) -> str:
        """The text without what a chat says of reactions, its lines without their indentation."""
        text = REPLY.sub("", text)
        if NOT_SAID.fullmatch(text):
            return ""
        lines = (line.strip() for line in text.split("\n"))
        return "\n".join(line for line in lines if not FOOTER.fullmatch(line)).strip()
