"""Lines of JSON, and files that are one JSON value, as conversations. Says in words what is wrong with broken JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from chat_app.errors import DataError
from chat_app.reading import records
from chat_app.reading.report import Located, Problem, Rejected
from chat_app.reading.source import MAX_LINE_MEGABYTES, NumberedLine
from chat_app.reading.texts import not_utf8

BRACKETS = "Check the quotes, commas and brackets there."
MISSING_NUMBERS = ("NaN", "Infinity")


def conversations(lines: Iterable[NumberedLine], file: str, *, need_reply: bool = True) -> Iterator[Located | Problem]:
    """Every line as a conversation or a problem; blank lines are passed over."""
    for number, raw in lines:
        if raw is None:
            reason = f"This line is longer than {MAX_LINE_MEGABYTES} MB."
            yield Problem(file, number, reason, "Put each conversation on its own line.")
            continue
        if not raw or raw.isspace():
            continue
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            rejected = _broken(raw, error)
            yield Problem(file, number, rejected.reason, rejected.advice)
            continue
        yield from _of_value(value, file, number, need_reply)


def conversations_of_whole(text: bytes, file: str, *, need_reply: bool = True) -> Iterator[Located | Problem]:
    """The conversations of a file that is one JSON value over several lines; an item's number stands for its line.

    Raises:
        DataError: it is not JSON, so that no item can be told from the next.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        rejected = _broken(text, error, "file")
        raise DataError(rejected.reason, where=f"{file}, line {error.lineno}", advice=rejected.advice) from error
    yield from _of_value(value, file, None, need_reply)


def _of_value(value: Any, file: str, line: int | None, need_reply: bool) -> Iterator[Located | Problem]:
    for item, record in records.parts(value):
        position = line or item or 1
        try:
            yield Located(records.conversation(record, need_reply=need_reply), position)
        except Rejected as rejected:
            reason = rejected.reason if item is None else f"In item {item}: {rejected.reason}"
            yield Problem(file, position, reason, rejected.advice)


def _broken(raw: bytes, error: orjson.JSONDecodeError, what: str = "line") -> Rejected:
    """Why something is not JSON, for a person who has never read its grammar."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as bad:
        return not_utf8(bad.start, what)
    if not raw.lstrip().startswith((b"{", b"[")):
        return Rejected(f"This {what} is not JSON: it does not begin with {{ or [.", records.SHAPES)
    where = f"at character {error.colno}"
    rest = error.doc[error.pos : error.pos + 16].lstrip("-")
    if "surrogate" in error.msg:
        return Rejected(f"This {what} has half of a character (a lone \\ud800-\\udfff), {where}.", "Write it again.")
    if rest.startswith(MISSING_NUMBERS):
        return Rejected(
            f"This {what} has a number that JSON does not have, {where}.", "Write null or a number instead."
        )
    if rest.startswith("'"):
        return Rejected(f"This {what} has single quotes, {where}.", "JSON texts stand in double quotes.")
    if "depth" in error.msg:
        return Rejected(f"This {what} has too many brackets inside each other.", BRACKETS)
    if "end of data" in error.msg:
        return Rejected(f"This {what} ends too early: something that was opened is not closed.", BRACKETS)
    if "trailing comma" in error.msg:
        return Rejected(f"This {what} has a comma too many, {where}.", "Delete that comma.")
    if "after document" in error.msg:
        return Rejected(f"This {what} goes on after its end, {where}.", "Put each conversation on its own line.")
    if "control character" in error.msg:
        return Rejected(
            f"This {what} has a tab or another control character in a text, {where}.", "Write a tab as \\t."
        )
    return Rejected(f"This {what} is not JSON, {where}.", BRACKETS)
