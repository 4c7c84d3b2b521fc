"""The reader of JSON Lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from chat_app.data.readers.json import records, values
from chat_app.data.readers.json.errors import explain_json_error
from chat_app.data.readers.notes import BadExamples, MarkedBadError
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.text_source import MAX_LINE_MEGABYTES, NumberedLine
from chat_app.data.readers.types import Located, Problem, RejectedError


@dataclass(frozen=True)
class JsonlReader(TextReader):
    """Reads JSON Lines."""

    kind = "jsonl"

    @classmethod
    def sniff(cls, file: InputFile) -> JsonlReader | None:
        """A reader if most of the first lines are JSON."""
        return cls(file.source, file.options) if file.layout == "jsonl" else None

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations and the problems, line by line."""
        lines = self.source.read_lines()
        return read_conversations(lines, self.source.name, options=self.options, need_reply=need_reply)


def read_conversations(
    lines: Iterable[NumberedLine], file: str, *, options: ReadingOptions | None = None, need_reply: bool = True
) -> Iterator[Located | Problem]:
    """Read each line as a conversation, a list of conversations or a problem; blank lines are skipped.

    Lines of a well-known corpus or of a table are read as rows, and a conversation may take several of them.

    Raises:
        DataError: the lines are rows of a table without columns for conversations.
    """
    options = options or ReadingOptions()
    sample, found = values.peek(_parse_lines(lines, file))
    schema = values.detect_schema(sample, options, need_reply=need_reply)
    if schema != "records":
        yield from values.read_conversations(found, schema, file, options, need_reply=need_reply, items=False)
        return
    bad = BadExamples()
    for item in found:
        if isinstance(item, Problem):
            yield item
        else:
            yield from _read_line(item[1], file, item[0], need_reply, bad)
    yield from bad.iterate_notes(file)


def _parse_lines(lines: Iterable[NumberedLine], file: str) -> Iterator[tuple[int, Any] | Problem]:
    for number, raw in lines:
        if raw is None:
            reason = f"This line is longer than {MAX_LINE_MEGABYTES} MB."
            yield Problem(file, number, reason, "Put each conversation on its own line.")
            continue
        if not raw or raw.isspace():
            continue
        try:
            yield number, orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            rejected = explain_json_error(raw, error)
            yield Problem(file, number, rejected.reason, rejected.advice)


def _read_line(value: Any, file: str, line: int, need_reply: bool, bad: BadExamples) -> Iterator[Located | Problem]:
    for item, record in records.iterate_records(value):
        try:
            yield Located(records.parse_conversation(record, need_reply=need_reply), line, file)
        except MarkedBadError as rejected:
            bad.add(rejected.mark, line)
        except RejectedError as rejected:
            reason = rejected.reason if item is None else f"In item {item}: {rejected.reason}"
            yield Problem(file, line, reason, rejected.advice)
