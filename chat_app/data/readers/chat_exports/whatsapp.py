"""A chat that WhatsApp exported as text -> its messages. Knows lines and authors; knows nothing of conversations.

A message is a stamp (date and time), its author, a colon and a text, which may go on over the next lines. Notices
(somebody joined, messages are encrypted) have a stamp and no author; media that were not exported leave a mark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from chat_app.data.readers.chat_exports.chat_reader import ChatReader
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.chat_exports.whatsapp_system_messages import (
    DIRECTION_MARKS,
    NOTICE,
    NOTICE_TEXT,
    strip_system_text,
)
from chat_app.data.readers.chat_exports.whatsapp_timestamps import (
    Calendar,
    DateNumbers,
    DateOrder,
    Timestamp,
    detect_date_order,
    parse_timestamp,
)
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.text_source import MAX_LINE_MEGABYTES, Source, number_lines, read_beginning
from chat_app.data.readers.turn_text import not_utf8_error
from chat_app.data.readers.types import Problem

SAMPLE_LINES = 50
# WhatsApp allows 65,536 characters. Without a limit a file with one stamp would be one message.
MAX_MESSAGE = 200_000
LONGEST_AUTHOR = 100
# Logs of programs look the same but for who speaks.
LOG_LEVELS = {"TRACE", "DEBUG", "INFO", "NOTICE", "WARN", "WARNING", "ERROR", "CRITICAL", "FATAL", "SEVERE", "ALERT"}
# How often every "Team: Anna" has to stand after a stamp to be a name with a colon, and how many of them one name has.
COLON_NAME_MESSAGES = 3
COLON_NAMES = 20
AUTHORS_KNOWN = 10_000
# A chat begins with notices, which an iPhone writes as if the group or the other person had said them.
NOTICE_LINES = 20
# On an iPhone this stands before what WhatsApp wrote by itself where a text would begin: "Anna: <mark>image omitted".
WRITTEN_BY_WHATSAPP = "\u200e"


@dataclass(frozen=True, slots=True)
class WhatsAppDialect:
    """How a file writes dates, names and notices, which only the whole file can tell.

    Attributes:
        order: how it writes dates.
        colon_names: names that hold a colon and a space.
        marks_notices: whether the mark WRITTEN_BY_WHATSAPP tells notices from texts. Where most texts begin with it,
            it means nothing.
    """

    order: DateOrder = "dmy"
    colon_names: frozenset[str] = frozenset()
    marks_notices: bool = True


class WhatsAppReader(ChatReader):
    """Reads a chat that WhatsApp exported as text."""

    @classmethod
    def sniff(cls, file: InputFile) -> WhatsAppReader | None:
        """A reader if the first lines begin with dates and name people."""
        source = file.source
        if not is_whatsapp(source):
            return None
        read = partial(read_messages, source, detect_dialect(source))
        return cls.survey("whatsapp", file.name, source.encoding, file.options, read)


def is_whatsapp(source: Source) -> bool:
    """Whether the first lines are those of a WhatsApp chat: they begin with stamps, and somebody speaks."""
    lines = (raw for _, raw in number_lines([read_beginning(source)[0]]) if raw and not raw.isspace())
    stamps = [
        parse_timestamp(_strip_direction_marks(raw.decode("utf-8", "replace"))) for raw in islice(lines, SAMPLE_LINES)
    ]
    found = [stamp for stamp in stamps if stamp is not None]
    authors = {author for stamp in found if (author := _Authors().split(stamp.rest)[0])}
    begins = bool(stamps) and stamps[0] is not None
    return bool(authors - LOG_LEVELS) and not authors & LOG_LEVELS and (begins or 2 * len(found) > len(stamps))


def detect_dialect(source: Source) -> WhatsAppDialect:
    """The dialect of a file, from one pass over it in bounded memory."""
    colons: dict[str, Counter[str] | None] = {}
    authors = _Authors()
    marked = bracketed = 0

    def dates() -> Iterator[DateNumbers]:
        nonlocal marked, bracketed
        for _, raw in source.read_lines():
            line = "" if raw is None else raw.decode("utf-8", "replace")
            stamp = parse_timestamp(_strip_direction_marks(line))
            if stamp is None:
                continue
            yield stamp.date
            author, text = authors.split(stamp.rest)
            if author and stamp.bracketed:
                bracketed += 1
                marked += _has_mark(line)
            if author:
                _count_colons(colons, author, text)

    order = detect_date_order(dates())
    return WhatsAppDialect(order, _collect_colon_names(colons), marks_notices=2 * marked < bracketed)


def read_messages(source: Source, dialect: WhatsAppDialect | None = None) -> Iterator[ChatMessage | Problem]:
    """The messages of a chat in their order; notices, media and deleted messages are passed over.

    Args:
        dialect: from `detect_dialect`, which is called if this is missing.
    """
    dialect = detect_dialect(source) if dialect is None else dialect
    calendar, authors = Calendar(dialect.order), _Authors()
    draft: _Draft | None = None
    for number, raw in source.read_lines():
        line, problem = _decode(raw, source.name, number)
        plain = _strip_direction_marks(line)
        stamp = parse_timestamp(plain)
        if problem is not None:
            # A text with a hole in it is no example: the message is left out as a whole.
            if stamp is not None and draft is not None and (message := draft.finish(source.name)):
                yield message
            draft = None
            yield problem
        elif stamp is not None:
            if draft is not None and (message := draft.finish(source.name)):
                yield message
            draft = _begin_draft(stamp, line, number, calendar, authors, dialect)
        elif draft is not None:
            draft.add(plain)
    if draft is not None and (message := draft.finish(source.name)):
        yield message


@dataclass(slots=True)
class _Draft:
    """A message whose end is not known yet."""

    time: float | None
    author: str
    line: int
    texts: list[str] = field(default_factory=list)
    size: int = 0

    def add(self, text: str) -> None:
        self.size += len(text) + 1
        if self.size <= MAX_MESSAGE:
            self.texts.append(text)

    def finish(self, file: str) -> ChatMessage | Problem | None:
        if self.size > MAX_MESSAGE:
            reason = f"This message has more than {MAX_MESSAGE:,} characters."
            return Problem(file, self.line, reason, "Check whether the lines after it belong to it.")
        text = self.texts[0] if len(self.texts) == 1 else "\n".join(self.texts)
        text = strip_system_text(text)
        if not text or (self.line <= NOTICE_LINES and NOTICE_TEXT.match(text)):
            return None
        return ChatMessage(self.time, self.author, text, self.line)


def _begin_draft(
    stamp: Timestamp, line: str, number: int, calendar: Calendar, authors: _Authors, dialect: WhatsAppDialect
) -> _Draft | None:
    """The message that a stamped line begins; None if it is a notice."""
    author, text = authors.split(stamp.rest)
    if not author or (dialect.marks_notices and stamp.bracketed and _has_mark(line)):
        return None
    if dialect.colon_names:
        more, colon, rest = text.partition(": ")
        if colon and f"{author}: {more}" in dialect.colon_names:
            author, text = f"{author}: {more}", rest
    draft = _Draft(calendar.to_seconds(stamp), author, number)
    draft.add(text)
    return draft


class _Authors:
    """Tells authors from notices. Remembers them: few people write all the messages, and it is asked for each."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def split(self, rest: str) -> tuple[str, str]:
        """The author and the text after a stamp; no author if it is a notice."""
        written, colon, text = rest.partition(": ")
        if not colon:
            if not rest.endswith(":"):
                return "", ""
            written = rest[:-1]
        if len(written) > LONGEST_AUTHOR:
            return "", ""
        author = self._known.get(written)
        if author is None:
            if len(self._known) >= AUTHORS_KNOWN:
                self._known.clear()
            author = self._known[written] = _clean_author(written)
        return author, text


def _clean_author(written: str) -> str:
    """The name without what WhatsApp puts before names that are not in the address book; empty for a notice."""
    return "" if NOTICE.search(written) else " ".join(written.split()).removeprefix("~").lstrip()


def _strip_direction_marks(line: str) -> str:
    return line if line.isascii() else DIRECTION_MARKS.sub("", line)


def _has_mark(line: str) -> bool:
    """Whether the text of an iPhone's message begins with the mark of what WhatsApp wrote itself."""
    if WRITTEN_BY_WHATSAPP not in line:
        return False
    text = line.find(": ", line.find("]"))
    return text >= 0 and line.startswith(WRITTEN_BY_WHATSAPP, text + 2)


def _decode(raw: bytes | None, file: str, number: int) -> tuple[str, Problem | None]:
    if raw is None:
        reason = f"This line is longer than {MAX_LINE_MEGABYTES} MB."
        return "", Problem(file, number, reason, "Split it into several lines.")
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError as error:
        rejected = not_utf8_error(error.start)
        return raw.decode("utf-8", "replace"), Problem(file, number, rejected.reason, rejected.advice)


def _count_colons(colons: dict[str, Counter[str] | None], author: str, text: str) -> None:
    """Notes what stands before a second colon, as long as every text of that author has one."""
    if author not in colons and len(colons) >= AUTHORS_KNOWN:
        return
    known = colons.setdefault(author, Counter())
    more, colon, _ = text.partition(": ")
    if known is None:
        return
    if not colon or len(more) > LONGEST_AUTHOR or (more not in known and len(known) == COLON_NAMES):
        colons[author] = None
    else:
        known[more] += 1


def _collect_colon_names(colons: dict[str, Counter[str] | None]) -> frozenset[str]:
    return frozenset(
        f"{author}: {more}"
        for author, known in colons.items()
        if known and min(known.values()) >= COLON_NAME_MESSAGES
        for more in known
    )
