"""Reads numbered JSON values: records in a chat schema, rows of a well-known corpus, or rows of a table.

The schema is detected from the first values. The values come from JSON Lines, from a JSON document or from the Hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import Any, Literal

from chat_app.conversation import Conversation
from chat_app.data.readers.corpora import blended_skill_talk, dailydialog, empathetic_dialogues, personachat
from chat_app.data.readers.json import records
from chat_app.data.readers.json.messages import SHAPES, describe_value
from chat_app.data.readers.notes import BadExamples, MarkedBadError
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.types import Located, Part, Problem, RejectedError
from chat_app.errors import DataError

Schema = Literal["records", "table", "dailydialog", "personachat", "blended", "empathetic rows", "personachat rows"]
Numbered = tuple[int, Any]

SAMPLE_VALUES = 8


def peek(values: Iterable[Numbered | Problem]) -> tuple[list[Any], Iterator[Numbered | Problem]]:
    """The first values, for `detect_schema`, and an iterator over all of them."""
    values = iter(values)
    first = list(islice(values, SAMPLE_VALUES))
    return [item[1] for item in first if not isinstance(item, Problem)], chain(first, values)


def detect_schema(sample: list[Any], options: ReadingOptions, *, need_reply: bool = True) -> Schema:
    """Detect the schema of values from the first ones."""
    found = [value for value in sample if isinstance(value, dict) and value]
    if not found or 2 * len(found) <= len([value for value in sample if value != {}]):
        return "records"
    if options.columns:
        return "table"
    first = found[0]
    if empathetic_dialogues.is_row(first):
        return "empathetic rows"
    if personachat.is_record(first):
        return "personachat"
    if personachat.is_row(first):
        return "personachat rows"
    if blended_skill_talk.is_record(first):
        return "blended"
    if dailydialog.is_row(first):
        return "dailydialog"
    if any(records.is_known(value, need_reply=need_reply) for value in found):
        return "records"
    flat = [not any(isinstance(cell, list | dict) for cell in value.values()) for value in found]
    # A single field is no table: the error about a record explains more.
    return "table" if all(flat) and max(map(len, found)) > 1 else "records"


def read_conversations(
    values: Iterable[Numbered | Problem],
    schema: Schema,
    file: str,
    options: ReadingOptions,
    *,
    need_reply: bool = True,
    part: Part = "train",
    items: bool = True,
) -> Iterator[Located | Problem]:
    """Read values of one schema as conversations. Problems among them are yielded in their place.

    Args:
        values: numbered values and problems.
        schema: from `detect_schema`.
        file: the name to show for the file.
        options: the roles of columns and the repair of texts.
        need_reply: False also yields conversations without a reply.
        part: the part of the data set that the values belong to.
        items: whether the numbers are those of items, not of lines; the reason of a problem then says so.

    Raises:
        DataError: the values are rows of a table without columns for conversations.
    """
    if schema == "table":
        yield from _read_table(values, file, options, need_reply, part)
        return
    if schema in ("empathetic rows", "personachat rows"):
        grouped = empathetic_dialogues.convert_rows if schema == "empathetic rows" else personachat.convert_rows
        problems: list[Problem] = []
        for found in grouped(_keep_objects(values, file, problems), file, options, need_reply, part):
            yield from problems
            problems.clear()
            yield found
        yield from problems
        return
    convert, bad = _choose_converter(schema, options, need_reply), BadExamples()
    for item in values:
        if isinstance(item, Problem):
            yield item
            continue
        number, value = item
        try:
            yield Located(convert(value), number, file, part)
        except MarkedBadError as rejected:
            bad.add(rejected.mark, number)
        except RejectedError as rejected:
            reason = f"In item {number}: {rejected.reason}" if items else rejected.reason
            yield Problem(file, number, reason, rejected.advice)
    yield from bad.iterate_notes(file)


def _choose_converter(schema: Schema, options: ReadingOptions, need_reply: bool) -> Callable[[Any], Conversation]:
    known = {
        "dailydialog": dailydialog.convert_row,
        "personachat": personachat.convert_record,
        "blended": blended_skill_talk.convert_record,
    }
    special = known.get(schema)

    def convert(value: Any) -> Conversation:
        if special is not None and isinstance(value, dict):
            return special(value, options, need_reply)
        return records.parse_conversation(value, need_reply=need_reply)

    return convert


def _read_table(
    values: Iterable[Numbered | Problem], file: str, options: ReadingOptions, need_reply: bool, part: Part
) -> Iterator[Located | Problem]:
    from chat_app.data.readers.tables import columns  # only for tables

    rows = (
        item if isinstance(item, Problem) or isinstance(item[1], dict) else _no_row_problem(item, file)
        for item in values
    )
    for found in columns.read_records(rows, file, options, need_reply=need_reply):
        yield found if part == "train" or isinstance(found, Problem) else replace(found, part=part)


def _keep_objects(values: Iterable[Numbered | Problem], file: str, problems: list[Problem]) -> Iterator[Numbered]:
    """The values that are objects; others are added to `problems`."""
    for item in values:
        if isinstance(item, Problem):
            problems.append(item)
        elif isinstance(item[1], dict):
            yield item
        else:
            problems.append(_no_row_problem(item, file))


def _no_row_problem(item: Numbered, file: str) -> Problem:
    return Problem(file, item[0], f"Here is {describe_value(item[1])} instead of a row with named fields.", SHAPES)


def no_list_error(file: str) -> DataError:
    """The error for a JSON file without a list of conversations."""
    return DataError("No list of conversations is found in this file.", where=file, advice=SHAPES)
