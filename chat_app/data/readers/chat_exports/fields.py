"""A field of a chat export in JSON as the type that it must have, or a complaint in words. Knows no export's layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.types import Problem, RejectedError

ADVICE = "Export the chat again, or mend this message."
LATEST = 1e11  # seconds since 1970; what is beyond is no time of a message
# The digits of a second's fraction differ from program to program; Python 3.10 reads three or six of them only.
ISO_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}:\d{2})(?:\.\d{1,12})?\s?(Z|[+-]\d{2}:?\d{2})?")
NUMBER = re.compile(r"-?\d{1,12}(?:\.\d{1,12})?")


def get_text(record: dict[str, Any], key: str) -> str:
    """A text; empty if the field is missing or null.

    Raises:
        RejectedError: it is something else.
    """
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RejectedError(f'"{key}" is not text.', ADVICE)
    return value


def get_name(record: dict[str, Any], *keys: str) -> str:
    """The first of several fields that holds a name, on one line; empty if none does."""
    for key in keys:
        value = record.get(key)
        if isinstance(value, str) and (name := " ".join(value.split())):
            return name
    return ""


def get_record(record: dict[str, Any], key: str) -> dict[str, Any]:
    """An object in braces; empty if the field is missing or null.

    Raises:
        RejectedError: it is something else.
    """
    value = record.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RejectedError(f'"{key}" is not an object in braces.', ADVICE)
    return value


def get_list(record: dict[str, Any], key: str) -> list[Any]:
    """A list; empty if the field is missing or null.

    Raises:
        RejectedError: it is something else.
    """
    value = record.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RejectedError(f'"{key}" is not a list.', ADVICE)
    return value


def parse_time(record: dict[str, Any], *keys: str) -> float | None:
    """Seconds since 1970 from the first field that is there: a number, digits, or a date as ISO 8601 writes it.

    A date without a time zone is taken for UTC: only the differences count. None if no field is there.

    Raises:
        RejectedError: the field is there and holds no time.
    """
    for key in keys:
        value = record.get(key)
        if value is None:
            continue
        seconds: float | None = None
        if isinstance(value, str):
            seconds = float(value) if NUMBER.fullmatch(value) else _parse_iso_time(value)
        elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LATEST:
            seconds = float(value)
        if seconds is None or not abs(seconds) <= LATEST:
            raise RejectedError(f'"{key}" holds no time.', ADVICE)
        return seconds
    return None


def convert_messages(
    items: list[Any],
    file: str,
    read: Callable[[dict[str, Any], int], ChatMessage | None],
    *,
    before: int = 0,
    of: str = "",
) -> Iterator[ChatMessage | Problem]:
    """What `read` makes of every message and its number; what it refuses becomes a problem.

    Args:
        before: how many messages of the export stand before these.
        of: the chat they are of, if the export has several, as the end of "Message 3...".
    """
    for number, item in enumerate(items, start=1):
        try:
            if not isinstance(item, dict):
                raise RejectedError("It is not an object in braces.", ADVICE)
            message = read(item, before + number)
        except RejectedError as rejected:
            reason = f"Message {number:,}{of} cannot be read: {rejected.reason}"
            yield Problem(file, before + number, reason, rejected.advice)
        else:
            if message is not None:
                yield message


def _parse_iso_time(text: str) -> float | None:
    match = ISO_TIME.fullmatch(text.strip())
    if match is None:
        return None
    day, clock, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return (moment - _parse_zone(zone)).timestamp()


def _parse_zone(zone: str | None) -> timedelta:
    if zone is None or zone == "Z":
        return timedelta()
    sign = -1 if zone[0] == "-" else 1
    return sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
