"""Lines that begin with the name of who speaks ("Anna: Hello", "**Anna:** Hello") -> messages.

Who a speaker is, is not known beforehand: what stands before a colon again and again. A line without one goes on with
what was said. Knows no program's layout.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from chat_app.data.readers.chat_exports.clock_times import parse_clock
from chat_app.data.readers.chat_exports.line_log import Begun, LineLogReader, sample_lines
from chat_app.data.readers.json.messages import find_role
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.tables import header_words
from chat_app.data.readers.text import transcript
from chat_app.data.readers.text_source import Source

STAMP = r"(?:[\[(]?(?P<clock>\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,3})?)?(?: ?[AaPp]\.?[Mm]\.?)?)[\])]?[ \t]+(?:- )?)?"
NAME = r"(?P<name>[^\W\d_][^\n:：*<>{}\[\]\"=|;!?]{0,39}?)"
PLAIN = re.compile(
    rf"\s{{0,8}}{STAMP}{NAME}(?: \((?P<after>\d{{1,2}}:\d{{2}}(?::\d{{2}})?)\))?\s?(?::(?=\s|\Z)|：)(?P<text>.*)"
)
BOLD = re.compile(
    rf"\s{{0,8}}(?:[-+>*]\s{{1,3}})?{STAMP}(?P<mark>\*\*|__){NAME}\s?(?:[:：](?P=mark)|(?P=mark)\s?[:：])(?P<text>.*)"
)
MOST_WORDS = 5
MOST_NAMES = 5_000
SEPARATORS = re.compile(r"\s*(?:-{3,}|\*{3,}|={3,}|_{3,}|~{3,}|\* \* \*|#{1,6} .*|<\|endoftext\|>)\s*")
# How many of the lines that say something begin with a speaker: a novel has a few colons too.
NAMED_SHARE, BOLD_SHARE = 0.5, 0.2
EVERY_LINE = 0.9
FEWEST = 2
# What stands before a colon in forms, letters, settings and logs. A speaker has no such name.
FIELD_WORDS = frozenset(
    """
    name names first+name last+name surname phone telephone tel mobile fax email e-mail mail address street city zip
    country state date time datetime day year month subject re cc bcc title author url link website http https www ftp
    version id uid key value type class size length width height price total amount number no nr note notes nb ps todo
    fixme warning error info debug trace critical fatal notice example examples description summary abstract keywords
    tags category language license copyright file files path folder host port user-agent content-type server status
    code result results input+file output+file source target step steps chapter section figure table page pages part
    definition word meaning synonyms translation front back ingredients instructions method duration location place
    telefon adresse straße ort datum betreff titel hinweis beispiel größe preis anzahl nom adresse+e-mail objet prix
    nombre dirección fecha asunto precio nota nome indirizzo data oggetto prezzo тема дата имя адрес телефон
    """.replace("+", " ").split()
)


class NamedLinesReader(LineLogReader):
    """Reads lines that begin with the name of who speaks."""

    @classmethod
    def sniff(cls, file: InputFile) -> NamedLinesReader | None:
        """A reader if two names stand before a colon again and again, and are no words of a form."""
        style = detect_style(sample_lines(file))
        if style is None or file.options.columns or transcript.is_transcript(file.source):
            return None
        names = _collect_names(file.source, style)
        if len(names) < FEWEST:
            return None
        layout = NamedLines(style, names, _blank_line_ends(style, names, sample_lines(file)))
        return cls.open_log("names", file, partial(NamedLinesParser, layout))


@dataclass(frozen=True)
class NamedLines:
    """How a file is written: the pattern of its speakers, their names, whether an empty line ends a conversation."""

    pattern: re.Pattern[str]
    names: frozenset[str]
    blank_ends: bool


class NamedLinesParser:
    """Finds who begins to speak in a line."""

    def __init__(self, layout: NamedLines):
        self._layout = layout
        self._blank = self._parted = False

    def parse(self, line: str) -> Begun | None:
        """A speaker with the first line of what is said; None for a line that goes on."""
        if not line.strip():
            self._blank = True
            return None
        if SEPARATORS.fullmatch(line):
            self._parted = True
            return Begun()
        match = match_speaker(self._layout.pattern, line)
        if match is None or match["name"].strip() not in self._layout.names:
            self._blank = False
            return None
        parts = self._parted or (self._blank and self._layout.blank_ends)
        self._blank = self._parted = False
        name, clock = match["name"].strip(), match["clock"] or match.groupdict().get("after")
        by_bot = find_side(name) == "assistant"
        return Begun(name, match["text"].strip(), parse_clock(clock) if clock else None, by_bot, parts)

    def clean(self, text: str) -> str:
        """The text as it stands."""
        return text


def detect_style(lines: list[str]) -> re.Pattern[str] | None:
    """The pattern in which the first lines name their speakers; None if they name none."""
    said = sum(bool(line.strip()) for line in lines)
    for pattern, share in ((BOLD, BOLD_SHARE), (PLAIN, NAMED_SHARE)):
        found = [match for line in lines if (match := match_speaker(pattern, line))]
        counts = Counter(match["name"].strip() for match in found)
        speakers = {name: count for name, count in counts.items() if count >= FEWEST}
        tabs = sum("\t" in match["text"] for match in found)
        if len(counts) < FEWEST or not speakers or 2 * tabs > len(found):
            continue
        if any(name.casefold() in FIELD_WORDS for name in counts if pattern is PLAIN):
            continue
        if sum(speakers.values()) >= share * said and (len(speakers) >= FEWEST or len(found) >= EVERY_LINE * said):
            return pattern
    return None


def match_speaker(pattern: re.Pattern[str], line: str) -> re.Match[str] | None:
    """The speaker at the beginning of a line, if a name of a few words stands there."""
    match = pattern.match(line)
    return match if match and len(match["name"].split()) <= MOST_WORDS and "//" not in match["name"] else None


def find_side(name: str) -> str | None:
    """The role that a name says by itself: Bot, ChatGPT, Agent, Antwort."""
    role = find_role(name) or header_words.find_role(name)
    return role or ("assistant" if header_words.find_meaning(name) == "reply" else None)


def _collect_names(source: Source, pattern: re.Pattern[str]) -> frozenset[str]:
    """The speakers of a whole file. Where all lines have one, also those who speak once."""
    counts: Counter[str] = Counter()
    named = said = 0
    for line in _decode_lines(source):
        said += bool(line.strip())
        match = match_speaker(pattern, line)
        if match and (match["name"].strip() in counts or len(counts) < MOST_NAMES):
            counts[match["name"].strip()] += 1
            named += 1
    fewest = 1 if named >= EVERY_LINE * said else FEWEST
    return frozenset(name for name, count in counts.items() if count >= fewest)


def _decode_lines(source: Source) -> Iterator[str]:
    for _, raw in source.read_lines():
        yield (raw or b"").decode("utf-8", "replace")


def _blank_line_ends(pattern: re.Pattern[str], names: frozenset[str], lines: Iterable[str]) -> bool:
    """Whether empty lines stand between conversations: most messages follow each other without one."""
    shapes: list[str] = []
    for line in lines:
        match = match_speaker(pattern, line)
        if match and match["name"].strip() in names:
            shapes.append("name")
        elif not line.strip() and shapes and shapes[-1] != "blank":
            shapes.append("blank")
    pairs = list(pairwise(shapes))
    return 2 * pairs.count(("name", "name")) > pairs.count(("name", "blank"))
