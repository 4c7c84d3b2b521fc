"""The beginning of a file of text, to see what it is. Reads one piece of it and closes it again."""

from __future__ import annotations

from itertools import islice

from chat_app.data.readers.text_source import Source, numbered_lines

SAMPLE_LINES = 20


def beginning(source: Source) -> tuple[bytes, bool]:
    """The first piece of a text, and whether there is more."""
    chunks = source.chunks()
    head, more = next(chunks, b""), next(chunks, b"")
    chunks.close()  # the file is closed now, not some time later
    return head, bool(more)


def first_lines(source: Source, count: int = SAMPLE_LINES) -> list[bytes]:
    """The first lines that say something, without the spaces around them; the last of them may be cut off."""
    return lines_of(beginning(source)[0], count)


def lines_of(head: bytes, count: int) -> list[bytes]:
    """The same of a piece of text."""
    said = (stripped for _, line in numbered_lines([head]) if line and (stripped := line.strip()))
    return list(islice(said, count))
