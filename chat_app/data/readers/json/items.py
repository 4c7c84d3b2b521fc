"""The items of a JSON file whose kind is known: of a list each item, else the value itself. Knows no conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson

from chat_app.data.readers.json import streaming
from chat_app.data.readers.json.document import is_streamed, parse, parse_document
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.text_source import MAX_LINE_BYTES, MAX_LINE_MEGABYTES, Source
from chat_app.data.readers.types import Problem

Items = Callable[[], Iterator[tuple[int, Any]]]


def looks_like_json(file: InputFile) -> bool:
    """Whether a file begins as a list or an object of JSON does. Looks at its beginning only."""
    return file.beginning.lstrip()[:1] in ("[", "{") and bool(file.head)


def open_items(file: InputFile) -> Items | None:
    """Begins passes over the items, numbered from 1; None if the file is no JSON value.

    Raises:
        DataError: the file is laid out as one JSON value and is no valid JSON.
    """
    source = file.source
    if file.layout == "text":
        return None
    value = parse_document(file)
    if value is not None:
        return lambda: iter(list(enumerate(value, start=1)) if isinstance(value, list) else [(1, value)])
    if file.layout == "json" or source.path.stat().st_size > MAX_LINE_BYTES:
        return (lambda: _stream(source)) if is_streamed(source) else lambda: iter([(1, parse(source))])
    return None


def _stream(source: Source) -> Iterator[tuple[int, Any]]:
    for _, items in streaming.iterate_sections(source):
        yield from items


def iterate_objects(source: Source, advice: str) -> Iterator[tuple[int, dict[str, Any]] | Problem]:
    """The objects in a file of JSON Lines, each with its line; of a line with a list, those in it. Other values and
    blank lines are passed over.

    Args:
        advice: for a line that is not JSON.
    """
    for number, raw in source.read_lines():
        if raw is None:
            yield Problem(source.name, number, f"This line is longer than {MAX_LINE_MEGABYTES} MB.", "Split it.")
            continue
        if not raw or raw.isspace():
            continue
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError:
            yield Problem(source.name, number, "This line is not JSON.", advice)
            continue
        yield from ((number, one) for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict))
