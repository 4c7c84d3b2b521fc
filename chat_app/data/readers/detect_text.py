"""Detection of a text file's layout (one JSON value, JSON Lines or other text), by its content, then by its name."""

from __future__ import annotations

from typing import Literal

import orjson

from chat_app.data.readers.detect_csv import detect_dialect
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.text_source import SAMPLE_LINES, Source, read_beginning, take_nonblank_lines

Layout = Literal["text", "jsonl", "json"]

JSON_EXTENSIONS = (".json", ".jsonl", ".ndjson")
# First lines that mean JSON over several lines, whatever the extension, if the other lines continue it.
OPENINGS = (b"[", b"{", b"[{", b"[[")
INSIDE = b'[]{}",'


def detect_layout(source: Source, options: ReadingOptions) -> Layout:
    """The layout of a file: what the person says, else from its first lines."""
    if options.layout != "automatic" or options.is_table:
        return "json" if options.layout == "json" else "jsonl" if options.layout == "jsonl" else "text"
    lines, cut = _read_sample(source)
    if not lines:
        return "jsonl" if source.extension in JSON_EXTENSIONS else "text"
    parsed = [_is_json(line) for line in lines]
    if _is_one_value(lines, parsed, cut, source.extension):
        return "json"
    if cut and _looks_like_json(lines[-1]):
        parsed[-1] = True  # cut off only in the sample
    tabs = sum(b"\t" in line and not _looks_like_json(line) for line in lines)
    if sum(parsed) >= max(tabs, 1):
        return "jsonl"
    if tabs:
        return "text"
    if any(_looks_like_json(line) for line in lines):
        return "jsonl"
    return "jsonl" if source.extension in JSON_EXTENSIONS and detect_dialect(source) is None else "text"


def _read_sample(source: Source) -> tuple[list[bytes], bool]:
    """The first nonblank lines, stripped, and whether the last of them is cut off."""
    head, more = read_beginning(source)
    lines = take_nonblank_lines(head, SAMPLE_LINES + 1)
    cut = more and not head.endswith((b"\n", b"\r")) and len(lines) <= SAMPLE_LINES
    return lines[:SAMPLE_LINES], cut


def _is_one_value(lines: list[bytes], parsed: list[bool], cut: bool, extension: str) -> bool:
    first = lines[0]
    if parsed[0] or not _looks_like_json(first):
        # A whole array on one line is read as that line, which may hold several conversations.
        return False
    if 2 * sum(parsed) > len(lines):
        return False
    if first in OPENINGS and all(line[:1] in INSIDE for line in lines[1:]):
        return True
    if extension != ".json":
        return False
    if cut and len(lines) == 1:
        return first.startswith(b"[")
    return first.endswith((b"[", b"{", b",", b":")) or not any(parsed)


def _looks_like_json(line: bytes) -> bool:
    """Whether a line begins like a list or an object, valid or not: ["a", {'a', [ - but not [laughs]."""
    return line[:1] in b"[{" and line[1:].lstrip()[:1] in b"\"'[]{}"


def _is_json(line: bytes) -> bool:
    if line[:1] not in b"[{":
        return False
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True
