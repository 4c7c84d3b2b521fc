"""Text files: detection of the encoding, and iteration over numbered lines as UTF-8, in bounded memory."""

from __future__ import annotations

import codecs
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from chat_app.data.readers.encodings import check_encoding, detect_encoding, holds_escapes
from chat_app.data.readers.types import explain_not_opened
from chat_app.errors import DataError

MAX_LINE_MEGABYTES = 10
MAX_LINE_BYTES = MAX_LINE_MEGABYTES * 1_000_000
CHUNK_BYTES = 1 << 18
# A text may have a stray NUL, which costs its line. With more than one NUL in so many bytes, a file is binary.
BYTES_PER_NUL = 1_000
# UTF-16 without a byte order mark: Latin text has a NUL in nearly every second byte and none in the others.
UTF16_NULS, UTF16_OTHERS = 0.3, 0.02
SAVE_AS = "Save it as plain text: tab-separated (.tsv) or JSON Lines (.jsonl), in UTF-8."

NO_FILE = ("This is a device or a pipe, and no file.", "Give a file on the disk.")

NumberedLine = tuple[int, bytes | None]

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is a prefix of it
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Archives and binary tables were handled in `archives` and `detect` before.
SIGNATURES = (
    (b"%PDF-", "a PDF"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"{\\rtf", "an RTF document"),
    (b"SQLite format 3", "a database"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"\x7fELF", "a program"),
    *((bytes((0x80, protocol)), "a Python pickle, which is never opened") for protocol in range(2, 6)),
)


@dataclass(frozen=True, slots=True)
class Source:
    """A file of text whose encoding is known.

    Attributes:
        path: where it lies.
        name: what the person calls it.
        encoding: how the text is stored, as Python calls it.
        mark: the number of bytes before the text.
        is_guessed: whether the encoding follows from statistics only, so that it may be another one.
    """

    path: Path
    name: str
    encoding: str
    mark: int
    is_guessed: bool = False

    @property
    def extension(self) -> str:
        """The extension of the name, or else of the path, in lower case with its dot."""
        return (Path(self.name).suffix or self.path.suffix).lower()

    def read_chunks(self) -> Generator[bytes, None, None]:
        """The text in chunks, as UTF-8. Invalid bytes of a UTF-8 file are passed through."""
        with _open(self.path, self.name) as file:
            file.seek(self.mark)
            if self.encoding in ("utf-8", "utf-8-sig"):
                yield from _iterate_bytes(file)
                return
            decoder = codecs.getincrementaldecoder(self.encoding)(errors="replace")
            for piece in _iterate_bytes(file):
                yield decoder.decode(piece).encode("utf-8", "replace")
            yield decoder.decode(b"", final=True).encode("utf-8", "replace")

    def read_lines(self) -> Iterator[NumberedLine]:
        """The lines, numbered from 1, without line ends; None for a line that is too long."""
        return number_lines(self.read_chunks())


def open_source(path: str | os.PathLike[str], name: str | None = None, encoding: str = "") -> Source:
    """Looks at a file and finds its encoding.

    Args:
        path: where it lies.
        name: what to call it to the person.
        encoding: what the person says that it is; it goes before everything but the mark of that same encoding.

    Raises:
        DataError: missing, empty, unreadable or no text.
        SettingError: there is no encoding of that name.
    """
    place = Path(path)
    name = name or place.name or str(path)
    try:
        usual, there = place.is_file(), place.exists()
    except PermissionError as error:
        closed = explain_not_opened(error)
        raise DataError(closed.reason, where=name, advice=closed.advice) from error
    except (OSError, ValueError):  # the name is too long or contains a NUL
        usual = there = False
    if not usual:
        if there:
            raise DataError(NO_FILE[0], where=name, advice=NO_FILE[1])
        raise DataError("There is no such file.", where=name, advice="Check the name and the folder.")
    with _open(place, name) as file:
        head = file.read(CHUNK_BYTES)
    if not head:
        raise DataError("The file is empty.", where=name, advice="Give a file with one conversation a line.")
    for signature, what in SIGNATURES:
        if head.startswith(signature):
            raise DataError(f"This is {what}, not text.", where=name, advice=SAVE_AS)
    _check_beginning(head, name)
    said = check_encoding(encoding)
    for mark, marked in BYTE_ORDER_MARKS:
        if head.startswith(mark) and said in ("", marked, marked[:6].rstrip("-"), marked.removesuffix("-sig")):
            return Source(place, name, marked, len(mark))
    if said:
        return Source(place, name, said, 0)
    found, is_guessed = _detect_without_bom(place, name, head)
    return Source(place, name, found, 0, is_guessed)


def _check_beginning(head: bytes, name: str) -> None:
    """Reject HTML, XML and Git LFS pointers.

    Raises:
        DataError: the file is one of these.
    """
    start = head[:200].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise DataError(
            "This is a web page, not a file of conversations.",
            where=name,
            advice="Download the file itself; a chat is to be exported as JSON or as text, not as HTML.",
        )
    if start.startswith(b"<?xml"):
        raise DataError("This is an XML file, not a file of conversations.", where=name, advice=SAVE_AS)
    if start.startswith(b"version https://git-lfs"):
        raise DataError(
            "This is only a pointer to a large file, not the file.",
            where=name,
            advice="Download the file itself, for example with its download button on the web page.",
        )


def number_lines(chunks: Iterable[bytes]) -> Iterator[NumberedLine]:
    """Split chunks into numbered lines. Only LF, CR LF and CR end a line, not U+2028, U+0085, VT or FF."""
    number, carry, too_long = 0, b"", False
    for chunk in chunks:
        data = carry + chunk
        # A CR at the end of the data may be the first half of a CR LF.
        end = 1 + max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1))
        for line in data[:end].splitlines():  # bytes.splitlines splits at LF, CR and CR LF only
            number += 1
            yield number, None if too_long or len(line) > MAX_LINE_BYTES else line
            too_long = False
        carry = data[end:]
        if too_long or len(carry.rstrip(b"\r")) > MAX_LINE_BYTES:
            too_long = True
            carry = b"\r" if carry.endswith(b"\r") else b""
    if carry or too_long:
        line = carry.rstrip(b"\r")
        yield number + 1, None if too_long or len(line) > MAX_LINE_BYTES else line


def _detect_without_bom(path: Path, name: str, head: bytes) -> tuple[str, bool]:
    """The encoding of a file without a mark, and whether that is only a guess."""
    if b"\0" in head:
        wide = _detect_utf32(head) or _detect_utf16(head)
        if wide:
            return wide, False
        if head.count(b"\0") > max(1, len(head) // BYTES_PER_NUL):
            raise DataError("This is not a file of text.", where=name, advice=SAVE_AS)
    if _is_utf8(path, name) and not holds_escapes(head):
        return "utf-8", False
    with _open(path, name) as file:
        encoding = detect_encoding(line for _, line in number_lines(_iterate_bytes(file)))
    if encoding is None:
        advice = f"{SAVE_AS} If you know the encoding, say it (--encoding NAME)."
        raise DataError("The encoding of this file is unknown, or it is not text.", where=name, advice=advice)
    return encoding, encoding != "utf-8"


def _is_utf8(path: Path, name: str) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with _open(path, name) as file:
            for piece in _iterate_bytes(file):
                decoder.decode(piece)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _detect_utf32(head: bytes) -> str | None:
    """UTF-32 without its mark: one byte of four is zero everywhere, and as UTF-16 it would be no text."""
    whole = head[: len(head) // 4 * 4]
    for encoding, zeros in (("utf-32-le", whole[3::4]), ("utf-32-be", whole[::4])):
        if whole and zeros.count(0) == len(zeros):
            try:
                whole.decode(encoding)
            except UnicodeDecodeError:
                continue
            return encoding
    return None


def _detect_utf16(head: bytes) -> str | None:
    half = len(head) / 2
    even, odd = head[::2].count(0) / half, head[1::2].count(0) / half
    if odd > UTF16_NULS and even < UTF16_OTHERS:
        return "utf-16-le"
    if even > UTF16_NULS and odd < UTF16_OTHERS:
        return "utf-16-be"
    return None


def _open(path: Path, name: str) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        closed = explain_not_opened(error)
        raise DataError(closed.reason, where=name, advice=closed.advice) from error


def _iterate_bytes(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(CHUNK_BYTES):
        yield piece


SAMPLE_LINES = 20


def read_beginning(source: Source) -> tuple[bytes, bool]:
    """The first chunk of a text, and whether there is more."""
    chunks = source.read_chunks()
    head, more = next(chunks, b""), next(chunks, b"")
    chunks.close()  # closes the file now, not at garbage collection
    return head, bool(more)


def read_first_lines(source: Source, count: int = SAMPLE_LINES) -> list[bytes]:
    """The first nonblank lines, stripped; the last of them may be cut off."""
    return take_nonblank_lines(read_beginning(source)[0], count)


def take_nonblank_lines(head: bytes, count: int) -> list[bytes]:
    """The first nonblank lines of a chunk, stripped."""
    said = (stripped for _, line in number_lines([head]) if line and (stripped := line.strip()))
    return list(islice(said, count))
