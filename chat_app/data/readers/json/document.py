"""The reader of a file that is one JSON value, in the layouts in which a data set is commonly saved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from chat_app.data.readers.json import records, streaming, values
from chat_app.data.readers.json.errors import explain_json_error
from chat_app.data.readers.json.messages import SURE_ROLE_KEYS
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.split_names import parse_part
from chat_app.data.readers.tables import talk
from chat_app.data.readers.text_source import MAX_LINE_BYTES, Source
from chat_app.data.readers.types import Located, Part, Problem, RejectedError
from chat_app.errors import DataError
from chat_app.formatting import format_bytes

MAX_WHOLE_BYTES = 200_000_000
SAMPLE_LISTS = 20

NUMBER = re.compile(r"\d{1,9}")

Section = tuple[Part, Iterator[tuple[int, Any]]]


@dataclass(frozen=True)
class DocumentReader(TextReader):
    """Reads a file that is one JSON value.

    Attributes:
        value: the parsed value; None if `is_streamed`.
        is_streamed: whether the file is read item by item, because it is too large to be parsed at once.
    """

    kind = "json"
    value: Any
    is_streamed: bool

    @classmethod
    def sniff(cls, file: InputFile) -> DocumentReader | None:
        """A reader if the file is one JSON value.

        A value on a single line is left to the reader of JSON Lines if it is a conversation or a list of conversations.
        It is read here if it is a data set in parts, a well-known corpus or a table.
        """
        if file.layout == "text" or (file.layout == "jsonl" and not _is_more_than_a_line(file)):
            return None
        return cls(file.source, file.options, parse_document(file), is_streamed(file.source))

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations and the problems, item by item."""
        if self.is_streamed:
            return _read_streamed(self.source, self.options, need_reply)
        return read_value(self.value, self.source.name, self.options, need_reply)


def parse_document(file: InputFile) -> Any:
    """The parsed value of a file that is one JSON value, also of a single line; None for other files.

    None as well for a file that is too large to be parsed at once.

    Raises:
        DataError: the file is laid out as one JSON value and is no valid JSON.
    """
    return file.once(_parse_document)


def _parse_document(file: InputFile) -> Any:
    if file.layout == "text" or (file.layout == "jsonl" and not file.once(_is_one_line)):
        return None
    return None if is_streamed(file.source) else file.once(_parse_single_value)


def _parse_single_value(file: InputFile) -> Any:
    if file.layout == "json" or _is_long_line(file):
        return parse(file.source)
    try:
        return parse(file.source)
    except DataError:
        return None  # The reader of JSON Lines explains what is wrong with the line.


def _is_long_line(file: InputFile) -> bool:
    """Whether the file is a single line that exceeds the limit of a line."""
    return file.once(_is_one_line) and file.path.stat().st_size > MAX_LINE_BYTES


def _is_more_than_a_line(file: InputFile) -> bool:
    """Whether the file is a single line that is neither a conversation nor a list of conversations."""
    if not file.once(_is_one_line):
        return False
    if _is_long_line(file):
        return True
    value = file.once(_parse_single_value)
    if isinstance(value, list):
        is_list_of_records = bool(value) and records.is_record(value[0])
        return is_list_of_records and values.detect_schema(value[: values.SAMPLE_VALUES], file.options) != "records"
    return isinstance(value, dict) and has_sections(value)


def _is_one_line(file: InputFile) -> bool:
    """Whether only white space follows the first line. It is read in chunks, whatever its length."""
    seen_end = False
    chunks = file.source.read_chunks()
    try:
        for chunk in chunks:
            if not seen_end:
                _, end, chunk = chunk.lstrip().partition(b"\n") if b"\n" in chunk else chunk.lstrip().partition(b"\r")
                seen_end = bool(end)
                if not seen_end:
                    continue
            if chunk.strip():
                return False
    finally:
        chunks.close()
    return True


def read_conversations(
    source: Source, options: ReadingOptions | None = None, need_reply: bool = True
) -> Iterator[Located | Problem]:
    """Read the conversations of a file. A conversation's line is the number of its item, from 1.

    Up to 200 MB are parsed at once. Larger files, and Persona-Chat with its twenty candidates for each utterance, are
    streamed item by item, in bounded memory.

    Raises:
        DataError: it is not JSON, is cut off, or holds no list of conversations.
    """
    options = options or ReadingOptions()
    if is_streamed(source):
        yield from _read_streamed(source, options, need_reply)
    else:
        yield from read_value(parse(source), source.name, options, need_reply)


def is_streamed(source: Source) -> bool:
    """Whether a file is to be streamed, since parsing it at once would need too much memory."""
    return source.path.stat().st_size > MAX_WHOLE_BYTES or streaming.is_personachat(source)


def parse(source: Source) -> Any:
    """Parse a whole file.

    Raises:
        DataError: the file is not JSON, with the line and the character, or is too large.
    """
    size = source.path.stat().st_size
    if size > MAX_WHOLE_BYTES:
        raise DataError(
            f"This file is one JSON value of {format_bytes(size)}; "
            f"at most {format_bytes(MAX_WHOLE_BYTES)} are read at once.",
            where=source.name,
            advice="Save it as JSON Lines: one conversation a line.",
        )
    text = b"".join(source.read_chunks())
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        rejected = explain_json_error(text, error, "file")
        raise DataError(rejected.reason, where=f"{source.name}, line {error.lineno}", advice=rejected.advice) from error


def read_value(
    value: Any, file: str, options: ReadingOptions | None = None, need_reply: bool = True
) -> Iterator[Located | Problem]:
    """Read the conversations of a parsed file. A conversation's line is the number of its item, from 1.

    Raises:
        DataError: it is a table without columns for conversations.
    """
    options = options or ReadingOptions()
    sections = _find_sections(value)
    if sections is None:
        yield from _read_single(value, file, options, need_reply)
        return
    for part, items in sections:
        sample, found = values.peek(items)
        schema = values.detect_schema(sample, options, need_reply=need_reply)
        yield from values.read_conversations(found, schema, file, options, need_reply=need_reply, part=part)


def has_sections(value: Any) -> bool:
    """Whether a parsed file contains lists of records, and is not a single conversation."""
    return _find_sections(value) is not None


def _read_single(value: Any, file: str, options: ReadingOptions, need_reply: bool) -> Iterator[Located | Problem]:
    """Read a value that is a single conversation."""
    schema = values.detect_schema([value], options, need_reply=need_reply)
    try:
        if schema in ("records", "table"):
            yield Located(records.parse_conversation(value, need_reply=need_reply), 1, file)
        else:
            yield from values.read_conversations(
                [(1, value)], schema, file, options, need_reply=need_reply, items=False
            )
    except RejectedError as rejected:
        yield Problem(file, 1, rejected.reason, rejected.advice)


def _find_sections(value: Any) -> list[Section] | None:
    """The lists of records in a value, each with its part; None if the value is a single conversation."""
    if isinstance(value, list):
        return [("train", _unwrap_rows(value))] if value and records.is_record(value[0]) else None
    if not isinstance(value, dict) or not value:
        return None
    parts = {name: part for name in value if (part := parse_part(name)) and isinstance(value[name], list | dict)}
    if parts and not any(isinstance(value.get(key), list) for key in ("messages", "turns", "dialog")):
        return [(part, items) for name, part in parts.items() for _, items in _find_sections(value[name]) or []]
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        return [("train", _split_table(value["columns"], value["data"]))]
    for key in streaming.CONTAINERS:
        items = value.get(key)
        if isinstance(items, list) and items and _holds_records(key, items[0]):
            return [("train", _unwrap_rows(items))]
        if isinstance(items, dict) and key == "data" and (inner := _find_sections(items)):
            return inner
    return _find_object_sections(value)


def _holds_records(key: str, first: Any) -> bool:
    """Whether the items of a list with this name are conversations, not the turns of one."""
    if isinstance(first, list):
        return True
    if not isinstance(first, dict) or any(name in first for name in SURE_ROLE_KEYS):
        return False
    return key in ("data", "rows", "records", "examples", "instances", "samples") or records.is_known(first)


def _unwrap_rows(items: list[Any]) -> Iterator[tuple[int, Any]]:
    """Number the items; rows of the Hub's viewer are unwrapped from their "row" field."""
    for number, item in enumerate(items, start=1):
        inner = item.get("row") if isinstance(item, dict) else None
        yield number, inner if isinstance(inner, dict) else item


def _split_table(columns: list[Any], rows: list[Any]) -> Iterator[tuple[int, Any]]:
    """The rows of a table that pandas wrote with orient="split"."""
    names = [str(name) for name in columns]
    for number, row in enumerate(rows, start=1):
        yield number, dict(zip(names, row, strict=False)) if isinstance(row, list) else row


def _find_object_sections(value: dict[str, Any]) -> list[Section] | None:
    """The records in an object of objects: columns by name or rows by number, as pandas writes them, or conversations
    by name."""
    inner = list(value.values())
    if records.is_known(value) and not all(isinstance(item, dict) for item in inner):
        return None
    if all(isinstance(item, dict) and item for item in inner):
        rows = list(inner[0])
        if all(NUMBER.fullmatch(row) for row in rows) and not all(NUMBER.fullmatch(name) for name in value):
            return [("train", _iterate_columns(value, rows))]
        return [("train", iter(enumerate(inner, start=1)))]
    if len(inner) > 1 and all(isinstance(item, list) and len(item) > 1 for item in inner) and _are_said(inner):
        return [("train", iter(enumerate(inner, start=1)))]
    return None


def _are_said(lists: list[list[Any]]) -> bool:
    """Whether lists under names may be conversations: of messages, or of texts some of which somebody would say."""
    texts = [text for items in lists[:SAMPLE_LISTS] for text in items if isinstance(text, str)]
    return not texts or talk.share_said(texts) >= talk.PAIR_SHARE


def _iterate_columns(columns: dict[str, Any], rows: list[str]) -> Iterator[tuple[int, Any]]:
    for number, row in enumerate(rows, start=1):
        yield number, {name: column.get(row) for name, column in columns.items()}


def _read_streamed(source: Source, options: ReadingOptions, need_reply: bool) -> Iterator[Located | Problem]:
    """Read a large file item by item. The schema is detected for each part."""
    found = False
    for part, items in streaming.iterate_sections(source):
        sample, rest = values.peek(items)
        found = found or bool(sample)
        schema = values.detect_schema(sample, options, need_reply=need_reply)
        yield from values.read_conversations(rest, schema, source.name, options, need_reply=need_reply, part=part)
    if not found:
        raise values.no_list_error(source.name)
