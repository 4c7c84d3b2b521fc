"""Logs of IRC -> messages, as irssi, WeeChat, HexChat, mIRC, ZNC and others write them. Notices are passed over."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial

from chat_app.data.readers.chat_exports.clock_times import parse_clock, parse_day
from chat_app.data.readers.chat_exports.line_log import Begun, LineLogReader, sample_lines
from chat_app.data.readers.protocol import InputFile

NICK = r"[A-Za-z_\[\]\\^{}|`][\w\[\]\\^{}|`.\-]{0,40}"
DATE = r"(?:\d{4}-\d{2}-\d{2}[T ]|[A-Z][a-z]{2} \d{1,2} (?:\d{4} )?)?"
STAMP = rf"\[?(?P<date>{DATE})(?P<clock>\d{{1,2}}:\d{{2}}(?::\d{{2}})?(?: ?[AaPp][Mm])?)\]?"
BRACKETS = re.compile(rf"(?:{STAMP}\s+)?<[@+%&~!* ]?(?P<nick>{NICK})>\s?(?P<text>.*)")
# Without a day any table of times and names would look like this; WeeChat always writes it.
TABS = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2}[T ])(?P<clock>\d{1,2}:\d{2}(?::\d{2})?)\t"
    rf"[@+%&~! ]?(?P<nick>{NICK}|-->|<--|--|\*|=!=)\t(?P<text>.*)"
)
NOTICE = re.compile(
    rf"(?:{STAMP}\s+)?(?:-!-|\*\*\*?|\*|-->|<--|--|==|=!=|-[^-\s]{{1,40}}-)\s.*|---.*|\*\*\*\* .*"
    r"|Session (?:Start|Close|Ident|Time):.*"
)
DAY = re.compile(r"(?:---|\*\*\*\*|Session Start:).*\d.*")
TAG = re.compile(r"</|<(?:br|p|b|i|div|a|td|tr|li|ul|s)\b")
SHARE = 0.6
FEWEST = 2
SIGNS = frozenset(("-->", "<--", "--", "*", "=!="))


class IrcReader(LineLogReader):
    """Reads a log of IRC."""

    @classmethod
    def sniff(cls, file: InputFile) -> IrcReader | None:
        """A reader if most lines have a nick in brackets, or between tabs after a time, and two of them speak again."""
        head = file.beginning
        if head[:1] in "{" or TAG.search(head) or not (BRACKETS.match(head) or "<" in head or "\t" in head):
            return None
        lines = [line for line in sample_lines(file) if line.strip()]
        for pattern in (BRACKETS, TABS):
            nicks = Counter(match["nick"] for line in lines if (match := pattern.fullmatch(line)))
            notices = sum(NOTICE.fullmatch(line) is not None for line in lines)
            speakers = [nick for nick in nicks if nick not in SIGNS]
            total = nicks.total()
            if len(speakers) >= FEWEST and total > len(nicks) and total + notices >= SHARE * len(lines):
                return cls.open_log("irc", file, partial(IrcParser, pattern))
        return None


class IrcParser:
    """Finds messages; every line is by itself."""

    def __init__(self, pattern: re.Pattern[str]):
        self._pattern = pattern
        self._day = 0.0

    def parse(self, line: str) -> Begun:
        """A message, or what is none."""
        match = self._pattern.fullmatch(line)
        if match is None or match["nick"] in SIGNS:
            if DAY.fullmatch(line) and (day := parse_day(line)) is not None:
                self._day = day
            return Begun()
        clock = parse_clock(match["clock"]) if match["clock"] else None
        day = parse_day(match["date"]) if match["date"] else None
        time = None if clock is None else (self._day if day is None else day) + clock
        return Begun(match["nick"], match["text"].strip(), time)

    def clean(self, text: str) -> str:
        """The text without the marks of colours and bold letters."""
        return re.sub(r"\x03\d{0,2}(?:,\d{1,2})?|[\x02\x0f\x11\x16\x1d\x1e\x1f]", "", text).strip()
