"""The reader of WhatsApp chats exported as text.

A message is a timestamp, its author, a colon and a text, which may continue on the next lines. Notices (a person
joined, messages are encrypted) have a timestamp and no author; omitted media are replaced by a placeholder text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

from chat_app.data.readers.chat_exports.chat_reader import ChatReader
from chat_app.data.readers.chat_exports.message_draft import MessageDraft
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
LONGEST_AUTHOR = 100
# Log files look the same, with a level in place of the author.
LOG_LEVELS = {"TRACE", "DEBUG", "INFO", "NOTICE", "WARN", "WARNING", "ERROR", "CRITICAL", "FATAL", "SEVERE", "ALERT"}
# "Team: Anna" is a name with a colon if it is the author of so many messages, and "Team" has at most so many of them.
COLON_NAME_MESSAGES = 3
COLON_NAMES = 20
AUTHORS_KNOWN = 10_000
# A chat begins with notices, to which an iPhone gives the group or the other person as the author.
NOTICE_LINES = 20
# An iPhone puts this mark before a placeholder or a notice of WhatsApp: "Anna: <mark>image omitted".
WRITTEN_BY_WHATSAPP = "\u200e"


@dataclass(frozen=True, slots=True)
class WhatsAppDialect:
    """How a file writes dates, names and notices, which is detected from the whole file.

    Attributes:
        order: the order of day, month and year.
        colon_names: the names that contain a colon and a space.
        marks_notices: whether WRITTEN_BY_WHATSAPP distinguishes notices from messages. It does not where most messages
            begin with it.
    """

    order: DateOrder = "dmy"
    colon_names: frozenset[str] = frozenset()
    marks_notices: bool = True


class WhatsAppReader(ChatReader):
    """Reads a chat that WhatsApp exported as text."""

    @classmethod
    def sniff(cls, file: InputFile) -> WhatsAppReader | None:
        """A reader if the first lines have timestamps and authors."""
        source = file.source
        if not is_whatsapp(source):
            return None
        read = partial(read_messages, source, detect_dialect(source))
        return cls.survey("whatsapp", file.name, source.encoding, file.options, read)


def is_whatsapp(source: Source) -> bool:
    """Whether the first lines are those of a WhatsApp chat: they have timestamps and authors."""
    lines = (raw for _, raw in number_lines([read_beginning(source)[0]]) if raw and not raw.isspace())
    stamps = [
        parse_timestamp(_strip_direction_marks(raw.decode("utf-8", "replace"))) for raw in islice(lines, SAMPLE_LINES)
    ]
    found = [stamp for stamp in stamps if stamp is not None]
    authors = {author for stamp in found if (author := _Authors().split(stamp.rest)[0])}
    begins = bool(stamps) and stamps[0] is not None
    return bool(authors - LOG_LEVELS) and not authors & LOG_LEVELS and (begins or 2 * len(found) > len(stamps))


def detect_dialect(source: Source) -> WhatsAppDialect:
    """Detect the dialect of a file in one pass, in bounded memory."""
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
    """Parse the messages of a chat; notices, media and deleted messages are skipped.

    Args:
        source: the file.
        dialect: from `detect_dialect`, which is called if this is None.
    """
    dialect = detect_dialect(source) if dialect is None else dialect
    calendar, authors = Calendar(dialect.order), _Authors()
    draft: MessageDraft | None = None
    for number, raw in source.read_lines():
        line, problem = _decode(raw, source.name, number)
        plain = _strip_direction_marks(line)
        stamp = parse_timestamp(plain)
        if problem is not None:
            # A message with an unreadable line is left out as a whole, since its text would have a gap.
            if stamp is not None and draft is not None and (message := _finish(draft, source.name)):
                yield message
            draft = None
            yield problem
        elif stamp is not None:
            if draft is not None and (message := _finish(draft, source.name)):
                yield message
            draft = _begin_draft(stamp, line, number, calendar, authors, dialect)
        elif draft is not None:
            draft.add(plain)
    if draft is not None and (message := _finish(draft, source.name)):
        yield message


def _finish(draft: MessageDraft, file: str) -> ChatMessage | Problem | None:
    def clean(text: str) -> str:
        text = strip_system_text(text)
        return "" if draft.line <= NOTICE_LINES and NOTICE_TEXT.match(text) else text

    return draft.finish(file, clean)


def _begin_draft(
    stamp: Timestamp, line: str, number: int, calendar: Calendar, authors: _Authors, dialect: WhatsAppDialect
) -> MessageDraft | None:
    """The message that a line with a timestamp begins; None if it is a notice."""
    author, text = authors.split(stamp.rest)
    if not author or (dialect.marks_notices and stamp.bracketed and _has_mark(line)):
        return None
    if dialect.colon_names:
        more, colon, rest = text.partition(": ")
        if colon and f"{author}: {more}" in dialect.colon_names:
            author, text = f"{author}: {more}", rest
    draft = MessageDraft(calendar.to_seconds(stamp), author, number)
    draft.add(text)
    return draft


class _Authors:
    """Splits authors from texts. Results are cached by name, because few people write all the messages."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def split(self, rest: str) -> tuple[str, str]:
        """The author and the text after a timestamp; the author is empty for a notice."""
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
    """The name without the ~ that WhatsApp puts before names outside the address book; empty for a notice."""
    return "" if NOTICE.search(written) else " ".join(written.split()).removeprefix("~").lstrip()


def _strip_direction_marks(line: str) -> str:
    return line if line.isascii() else DIRECTION_MARKS.sub("", line)


def _has_mark(line: str) -> bool:
    """Whether the text after the author begins with WRITTEN_BY_WHATSAPP."""
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
    """Count what stands before a second colon, as long as each text of the author has one."""
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
