"""Streams the items of a large JSON value one by one, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chat_app.data.readers.json.errors import BRACKETS, CUT_OFF
from chat_app.data.readers.split_names import parse_part
from chat_app.data.readers.text_source import Source, read_beginning
from chat_app.data.readers.types import Part
from chat_app.errors import DataError

# Fields of an object that contain a whole data set, besides the names of its parts.
CONTAINERS = (
    "data", "rows", "records", "conversations", "dialogues", "dialogs", "examples", "instances", "items", "samples",
)  # fmt: skip
MAX_DEPTH = 100
# Parser events (strings, numbers, brackets) of an item; a conversation of Persona-Chat has a few hundred.
MAX_ITEM_EVENTS = 1_000_000
TOO_LARGE = "Save it as JSON Lines: one conversation a line."
OPENING, CLOSING = ("start_map", "start_array"), ("end_map", "end_array")

Events = Iterator[tuple[str, Any]]


def is_personachat(source: Source) -> bool:
    """Whether a file begins as Persona-Chat does: {"train": [{"personality": [..."""
    head = read_beginning(source)[0][:4_096].lstrip()
    return head.startswith(b"{") and b'"personality"' in head


def iterate_sections(source: Source) -> Iterator[tuple[Part, Iterator[tuple[int, Any]]]]:
    """Iterate over the lists of items with their parts. Each list must be consumed before the next.

    The value is a list, or an object with lists under names such as train, validation, data or rows.

    Raises:
        DataError: the file is not JSON, is cut off, or has an item larger than any conversation.
    """
    events = _parse_events(source)
    event, _ = next(events)
    if event == "start_array":
        yield "train", _iterate_items(events, source.name, None)
    elif event == "start_map":
        yield from _iterate_object(events, source.name)
    for _ in events:  # to the end, so that a file that is cut off or has trailing data raises an error
        pass


def _iterate_object(events: Events, file: str) -> Iterator[tuple[Part, Iterator[tuple[int, Any]]]]:
    columns = None
    for event, key in events:
        if event != "map_key":
            return
        part = parse_part(key)
        event, value = next(events)
        if event == "start_array" and (part or key in CONTAINERS):
            items = _iterate_items(events, file, columns if key == "data" else None)
            yield part or "train", items
            for _ in items:  # those that the caller did not consume
                pass
            continue
        if event == "start_map" and key == "data":
            yield from _iterate_object(events, file)
            continue
        inner = _build_value(event, value, events, file)
        columns = inner if key == "columns" and isinstance(inner, list) else columns


def _iterate_items(events: Events, file: str, columns: list[Any] | None) -> Iterator[tuple[int, Any]]:
    """The items of the list that the events are in. `columns` names the cells of rows that are lists."""
    for number, (event, value) in enumerate(events, start=1):
        if event == "end_array":
            return
        item = _build_value(event, value, events, file, number)
        if isinstance(item, dict) and isinstance(item.get("row"), dict):
            item = item["row"]
        if columns is not None and isinstance(item, list):
            item = dict(zip(map(str, columns), item, strict=False))
        yield number, item


def _build_value(event: str, value: Any, events: Events, file: str, number: int | None = None) -> Any:
    """Build the value that begins with an event."""
    if event not in OPENING:
        return value
    root: Any = {} if event == "start_map" else []
    stack: list[Any] = [root]
    keys: list[str] = [""]
    count = 0
    for event, value in events:
        count += 1
        if count > MAX_ITEM_EVENTS or len(stack) > MAX_DEPTH:
            where = file if number is None else f"{file}, item {number}"
            what = "too many brackets inside each other" if len(stack) > MAX_DEPTH else "too much in one item"
            raise DataError(f"This file has {what}.", where=where, advice=TOO_LARGE)
        if event == "map_key":
            keys[-1] = value
            continue
        if event in CLOSING:
            stack.pop()
            keys.pop()
            if not stack:
                return root
            continue
        inner: Any = {} if event == "start_map" else [] if event == "start_array" else value
        if type(stack[-1]) is dict:
            stack[-1][keys[-1]] = inner
        else:
            stack[-1].append(inner)
        if event in OPENING:
            stack.append(inner)
            keys.append("")
    return root


class _Chunks:
    """A file-like object over the chunks of a source, for ijson."""

    def __init__(self, source: Source):
        self._chunks = source.read_chunks()

    def read(self, size: int = -1) -> bytes:
        """The next chunk, of any size; empty at the end."""
        return b"" if size == 0 else next((chunk for chunk in self._chunks if chunk), b"")


def _parse_events(source: Source) -> Events:
    import ijson  # only for large files

    try:
        yield from ijson.basic_parse(_Chunks(source), use_float=True)
    except ijson.IncompleteJSONError as error:
        reason = str(error)
        if "premature" in reason or "Incomplete" in reason or "EOF" in reason:
            what, advice = "This file ends too early: something that was opened is not closed.", CUT_OFF
        elif "UTF8" in reason or "UTF-8" in reason:
            what, advice = "This file has bytes that are not UTF-8 text.", "Save the file as UTF-8."
        else:
            what, advice = f"This file is not JSON ({reason.splitlines()[0].strip()}).", BRACKETS
        raise DataError(what, where=source.name, advice=advice) from error
    except ijson.JSONError as error:
        raise DataError("This file is not JSON.", where=source.name, advice=BRACKETS) from error
