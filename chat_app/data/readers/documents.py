"""The text of a Word or OpenDocument file: each paragraph as a line, each row of a table as cells between tabs.

Deleted and commented text, notes and pictures are left out.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from chat_app.data.readers.types import RejectedError
from chat_app.data.readers.xml_events import XmlEnd, XmlStart, parse_stream
from chat_app.errors import DataError

DocumentKind = Literal["docx", "odt"]

CONTENT = {"docx": "word/document.xml", "odt": "content.xml"}
MAX_XML_BYTES = 300_000_000
MAX_RATIO, FREE_BYTES = 300, 20_000_000
MAX_TEXT = 100_000_000
# In docx only the content of <w:t> is shown; in odt all that stands inside a paragraph.
PARAGRAPHS = {"docx": frozenset(("p",)), "odt": frozenset(("p", "h"))}
ROWS = frozenset(("tr", "table-row"))
CELLS = frozenset(("tc", "table-cell"))
TABS = frozenset(("tab",))
BREAKS = frozenset(("br", "cr", "line-break"))
UNSHOWN = frozenset(("note", "annotation", "tracked-changes", "del", "footnote", "instrText", "pict", "drawing"))
SAVE = "Open it, and save it as plain text (.txt), in UTF-8."


def write_text(path: Path, kind: DocumentKind, target: Path) -> None:
    """Write the text of a document into a new file.

    Raises:
        RejectedError: the document is damaged, locked, or unpacks to more than a document has.
    """
    try:
        with zipfile.ZipFile(path) as archive, target.open("x", encoding="utf-8", newline="\n") as file:
            entry = archive.getinfo(CONTENT[kind])
            grown = entry.file_size > FREE_BYTES and entry.file_size > MAX_RATIO * max(entry.compress_size, 1)
            if entry.file_size > MAX_XML_BYTES or grown:
                raise RejectedError("This document unpacks to far more than its size.", SAVE)
            size, empty = 0, True
            with archive.open(entry) as source:
                for line in _iterate_lines(_Limited(source, entry.file_size), kind):
                    size += len(line) + 1
                    empty = empty and not line.strip()
                    if size > MAX_TEXT:
                        raise RejectedError("This document holds too much text.", "Split it into several ones.")
                    file.write(line + "\n")
            if empty:
                raise RejectedError("This document holds no text.", "Give one with a conversation in it.")
    except DataError as error:
        raise RejectedError(f"This document cannot be read. {error.what}", SAVE) from error
    except (OSError, KeyError, RuntimeError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        raise RejectedError("This document is damaged or locked with a password.", SAVE) from error


class _Limited:
    """An entry of an archive, of which no more is read than it says it has."""

    def __init__(self, source: IO[bytes], size: int):
        self._source, self._left = source, size + 1

    def read(self, size: int = -1) -> bytes:
        piece = self._source.read(min(size if size >= 0 else self._left, self._left))
        self._left -= len(piece)
        return piece


def _iterate_lines(source: _Limited, kind: DocumentKind) -> Iterator[str]:
    """The paragraphs and rows as lines; a break inside a paragraph begins a line, inside a cell it is a space."""
    paragraphs = PARAGRAPHS[kind]
    texts: list[str] = []
    cells: list[str] = []
    hidden = rows = shown = 0
    for event in parse_stream(source, ""):
        if isinstance(event, XmlStart):
            name = event.name
            hidden += name in UNSHOWN
            rows += name in ROWS
            shown += name == "t" if kind == "docx" else name in paragraphs
            if name in CELLS and rows == 1:
                cells.append("")
            elif hidden:
                continue
            elif name in TABS:
                texts.append(" " if rows else "\t")
            elif name in BREAKS:
                texts.append(" " if rows else "\n")
            elif name == "s":
                texts.append(" ")
        elif isinstance(event, XmlEnd):
            name = event.name
            hidden -= name in UNSHOWN
            shown -= name == "t" if kind == "docx" else name in paragraphs
            if name in ROWS:
                rows -= 1
                if not rows:
                    yield "\t".join(cells)
                    cells = []
            if name in paragraphs and not hidden:
                text = "".join(texts)
                texts = []
                if rows and cells:
                    cells[-1] = " ".join(f"{cells[-1]} {text}".split())
                elif not rows:
                    yield text.replace("\r", "\n")
        elif shown and not hidden:
            texts.append(event.text.replace("\n", " ") if kind == "odt" else event.text)
