"""Typed access to the fields of JSON chat exports, with errors for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.types import Problem, RejectedError

ADVICE = "Export the chat again, or mend this message."
LATEST = 1e11  # seconds since 1970; no message has a later time
# Programs write fractions of a second with different numbers of digits; Python 3.10 accepts only three or six.
ISO_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}:\d{2})(?:\.\d{1,12})?\s?(Z|[+-]\d{2}:?\d{2})?")
NUMBER = re.compile(r"-?\d{1,12}(?:\.\d{1,12})?")


def get_text(record: dict[str, Any], key: str) -> str:
    """The text in a field; empty if the field is missing or null.

    Raises:
        RejectedError: the value is not text.
    """
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RejectedError(f'"{key}" is not text.', ADVICE)
    return value


def get_name(record: dict[str, Any], *keys: str) -> str:
    """The first non-empty text in several fields, with white space collapsed; empty if there is none."""
    for key in keys:
        value = record.get(key)
        if isinstance(value, str) and (name := " ".join(value.split())):
            return name
    return ""


def get_record(record: dict[str, Any], key: str) -> dict[str, Any]:
    """The object in a field; empty if the field is missing or null.

    Raises:
        RejectedError: the value is not an object.
    """
    value = record.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RejectedError(f'"{key}" is not an object in braces.', ADVICE)
    return value


def get_list(record: dict[str, Any], key: str) -> list[Any]:
    """The list in a field; empty if the field is missing or null.

    Raises:
        RejectedError: the value is not a list.
    """
    value = record.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RejectedError(f'"{key}" is not a list.', ADVICE)
    return value


def parse_time(record: dict[str, Any], *keys: str) -> float | None:
    """The time in the first of several fields that is present, in seconds since 1970; None if none is.

    It may be a number, digits, or a date in ISO 8601. Without a time zone it is read as UTC, since only differences
    matter.

    Raises:
        RejectedError: the field holds no time.
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
    """Parse the messages of an export; those that `read` rejects become problems.

    Args:
        items: the messages as JSON values.
        file: the name to show for the file.
        read: parses a message, given its number in the export; returns None for one to skip.
        before: the number of messages in the export before these.
        of: the name of their chat in problems, if the export has several, such as " of the chat X".
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
