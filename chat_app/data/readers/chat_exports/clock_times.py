"""Days and times of day as chat programs write them into lines -> seconds. Knows words; knows no program's layout."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from chat_app.data.readers.chat_exports.whatsapp_timestamps import AFTER_NOON, BEFORE_NOON

DAY_SECONDS = 86_400.0
HALF_DAY = 12
NOON_WORDS = {"正午", "noon"}
# 10:02, 10:02:03, 오전 10:02, 10:02 AM, 午後3:05, 10:02 a.m.
CLOCK = re.compile(r"([^\d:]{0,12}?)\s?(\d{1,2})[:.](\d{2})(?:[:.](\d{2})(?:[.,]\d{1,6})?)?\s?([^\d:]{0,12})")
NUMBERS = re.compile(r"(\d{4})\s?[-./年년]\s?(\d{1,2})\s?[-./月월]\s?(\d{1,2})")
NUMBERS_YEAR_LAST = re.compile(r"(?<!\d)(\d{1,2})[-./](\d{1,2})[-./](\d{4}|\d{2})(?!\d)")
NAMED_MONTH = re.compile(r"(?:(\d{1,2})\.?\s+)?([^\W\d_]{3,12})\.?\s+(?:(\d{1,2})(?:st|nd|rd|th)?,?\s+)?(\d{4})")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
CENTURY = 2000


def parse_clock(text: str) -> float | None:
    """Seconds since midnight of a time of day; None if the text is none."""
    match = CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    before, hours, minutes, seconds, after = match.groups()
    hour, minute, second = int(hours), int(minutes), int(seconds or 0)
    half = re.sub(r"[\s.,]", "", before or after).casefold()
    if half in AFTER_NOON and hour < HALF_DAY:
        hour += HALF_DAY
    elif half in BEFORE_NOON and hour == HALF_DAY:
        hour = 0
    elif half and half not in AFTER_NOON and half not in BEFORE_NOON:
        return None
    return 3600.0 * hour + 60 * minute + second if hour <= 24 and minute < 60 and second <= 60 else None


def parse_day(text: str, *, day_first: bool = False) -> float | None:
    """Seconds from 1970 to the beginning of a day; None if the text names no day.

    Args:
        day_first: of 1/2/2024 the first number is the day; without it the month, unless it is above 12.
    """
    if match := NUMBERS.search(text):
        return _to_seconds(*(int(number) for number in match.groups()))
    if match := NUMBERS_YEAR_LAST.search(text):
        one, two, year = (int(number) for number in match.groups())
        month, day = (two, one) if day_first or one > len(MONTHS) else (one, two)
        return _to_seconds(year if year > 99 else CENTURY + year, month, day)
    if match := NAMED_MONTH.search(text):
        before, name, after, written = match.groups()
        named = name[:3].casefold()
        if named in MONTHS and (before or after):
            return _to_seconds(int(written), MONTHS.index(named) + 1, int(after or before))
    return None


def _to_seconds(year: int, month: int, day: int) -> float | None:
    try:
        return datetime(year, month, day, tzinfo=timezone.utc).timestamp()
    except ValueError:
        return None
