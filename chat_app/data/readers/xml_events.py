"""XML -> its elements and texts, one by one, in bounded memory. Entities are never defined, and nothing is fetched.

Some programs write a sign outside the basic plane as two halves (&#55357;&#56832;), which is no XML; they are put
together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from xml.parsers import expat

from chat_app.data.readers.types import explain_not_opened
from chat_app.errors import DataError

CHUNK_BYTES = 1 << 16
MAX_DEPTH = 200
MAX_TEXT = 10_000_000
# &#55357; or &#xD83D; and the like: the first and the second half of a sign, and what XML allows no text to hold.
FIRST_HALF = rb"(55(?:29[6-9]|[3-9]\d\d)|56(?:[0-2]\d\d|3[01]\d)|x[dD][89abAB][0-9a-fA-F]{2})"
SECOND_HALF = rb"(56(?:3[2-9]\d|[4-9]\d\d)|57(?:[0-2]\d\d|3(?:[0-3]\d|4[0-3]))|x[dD][c-fC-F][0-9a-fA-F]{2})"
HALVES = re.compile(rb"&#" + FIRST_HALF + rb";&#" + SECOND_HALF + rb";")
UNSTORABLE = re.compile(rb"&#(?:" + FIRST_HALF + rb"|" + SECOND_HALF + rb"|0*[0-8]|1[124-9]|2\d|3[01]);")


@dataclass(frozen=True, slots=True)
class XmlStart:
    """An element begins. `line` counts from 1."""

    name: str
    attributes: dict[str, str]
    line: int

    def get(self, name: str) -> str:
        """An attribute; empty if it is missing."""
        return self.attributes.get(name, "")


@dataclass(frozen=True, slots=True)
class XmlEnd:
    """An element ends."""

    name: str


@dataclass(frozen=True, slots=True)
class XmlText:
    """A piece of text; one text may come in several pieces."""

    text: str


XmlEvent = XmlStart | XmlEnd | XmlText


@dataclass
class _Collector:
    """Takes what expat calls, and refuses what a file of data never needs."""

    file: str
    parser: Any
    events: list[XmlEvent] = field(default_factory=list)
    depth: int = 0
    pending: int = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        self.pending = 0
        if self.depth > MAX_DEPTH:
            raise DataError("This XML file is nested too deeply.", where=self.file, advice="Export it again.")
        self.events.append(
            XmlStart(name.rpartition(":")[2] if ":" in name else name, attributes, self.parser.CurrentLineNumber)
        )

    def end(self, name: str) -> None:
        self.depth -= 1
        self.pending = 0
        self.events.append(XmlEnd(name.rpartition(":")[2]))

    def text(self, text: str) -> None:
        self.pending += len(text)
        if self.pending > MAX_TEXT:
            raise DataError("One text of this XML file is too long.", where=self.file, advice="Export it again.")
        self.events.append(XmlText(text))

    def refuse(self, *_: Any) -> int:
        raise DataError(
            "This XML file defines entities, which are not read.", where=self.file, advice="Export it without them."
        )


def iterate_xml(path: Path, name: str) -> Iterator[XmlEvent]:
    """The elements and texts of a file. Names are without the prefix of their namespace.

    Raises:
        DataError: it is no XML, breaks off, or defines entities.
    """
    try:
        with path.open("rb") as file:
            yield from parse_stream(file, name)
    except OSError as error:
        closed = explain_not_opened(error)
        raise DataError(closed.reason, where=name, advice=closed.advice) from error


class _Readable(Protocol):
    """What gives bytes."""

    def read(self, size: int = -1, /) -> bytes: ...


def parse_stream(file: _Readable, name: str) -> Iterator[XmlEvent]:
    """The same of an open file."""
    parser = expat.ParserCreate()
    collector = _Collector(name, parser)
    parser.buffer_text = True
    parser.StartElementHandler = collector.start
    parser.EndElementHandler = collector.end
    parser.CharacterDataHandler = collector.text
    parser.EntityDeclHandler = collector.refuse
    parser.UnparsedEntityDeclHandler = collector.refuse
    parser.ExternalEntityRefHandler = collector.refuse
    try:
        for chunk in _repair(file, name):
            parser.Parse(chunk, False)
            yield from collector.events
            collector.events.clear()
        parser.Parse(b"", True)
        yield from collector.events
    except expat.ExpatError as error:
        where = f"{name}, line {error.lineno}"
        reason = expat.ErrorString(error.code) or "it cannot be parsed"
        advice = "It may have been cut off, or edited: get it once more."
        raise DataError(f"This file is not XML ({reason}).", where=where, advice=advice) from error


def _repair(file: _Readable, name: str) -> Iterator[bytes]:
    """The bytes with the halves of signs put together. They are cut behind elements, where no reference is."""
    carry = b""
    while chunk := file.read(CHUNK_BYTES):
        end = chunk.rfind(b">") + 1
        if not end:
            carry += chunk
            if len(carry) > MAX_TEXT:
                raise DataError("One text of this XML file is too long.", where=name, advice="Export it again.")
            continue
        yield _join_halves(carry + chunk[:end])
        carry = chunk[end:]
    yield _join_halves(carry)


def _join_halves(data: bytes) -> bytes:
    if b"&#" not in data:
        return data

    def join(match: re.Match[bytes]) -> bytes:
        high, low = (_parse_number(half) for half in match.groups())
        return chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00).encode("utf-8")

    return UNSTORABLE.sub(b"\xef\xbf\xbd", HALVES.sub(join, data))


def _parse_number(reference: bytes) -> int:
    return int(reference[1:], 16) if reference[:1] == b"x" else int(reference)
