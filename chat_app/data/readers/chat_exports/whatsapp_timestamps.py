"""Timestamps of WhatsApp exports in the formats of its languages, and the detection of their date order.

WhatsApp writes them as the phone displays them: 31.12.23, 23:59 or 12/31/23, 11:59 PM or 2023年12月31日 下午11:59, in
brackets on an iPhone and followed by a dash on Android. Which number is the day and which the month follows only from
the whole file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

DateOrder = Literal["dmy", "mdy", "ymd"]
ORDERS: tuple[DateOrder, ...] = ("dmy", "mdy", "ymd")
DateNumbers = tuple[str, str, str]

DATE = r"(\d{1,4})[./\-年년]\s?(\d{1,2})[./\-月월]\s?(\d{1,4})"
TIME = r"(\d{1,2})(?:[:.٫]|\s?h\s?)(\d{2})(?:[:.٫](\d{2}))?"
# After the time: AM or PM, or a word such as "Uhr"; then the bracket, the dash or the colon of old exports.
END = r"([^\d\[\]<>:\-–]{0,12}?)(?(1)\]|(?:\s[-–—]|:))(?:\s+|$)(.*)"
STAMPED = re.compile(rf"\s{{0,8}}(\[)?{DATE}([^\d\[\]<>:]{{1,20}}?){TIME}{END}", re.DOTALL)
TIME_FIRST = re.compile(rf"\s{{0,8}}(\[)?{TIME}([^\d\[\]<>:\-–]{{1,20}}?){DATE}{END}", re.DOTALL)

BEFORE_NOON = {
    "am", "上午", "午前", "凌晨", "清晨", "早上", "오전", "ص", "قظ", "قبلازظهر", "öö", "πμ", "de", "dop", "fm",
    "sa", "pg", "पूर्वाह्न", "முற்பகல்",
}  # fmt: skip
AFTER_NOON = {
    "pm", "下午", "午後", "中午", "晚上", "傍晚", "오후", "م", "بظ", "بعدازظهر", "ös", "μμ", "du", "odp", "em",
    "ch", "ptg", "अपराह्न", "பிற்பகல்",
}  # fmt: skip
NOON = "中午"
# Characters around these words: a comma, the points of "p. m.", the day of 31日 and the year of 2023 г.
NOT_HALF = re.compile(r"[\s.,،、٬日일'’]|г\.|(?<=\s)(?:à|às|a las|um|klo|kl)(?=\s)")
CENTURY = 2000
DAY_SECONDS = 86_400


class Timestamp(NamedTuple):
    """The timestamp of a message and the rest of its line.

    Attributes:
        date: the three numbers of the date, as written.
        clock: seconds since midnight.
        bracketed: whether it is in brackets, as on an iPhone.
        rest: the line after it.
    """

    date: DateNumbers
    clock: int
    bracketed: bool
    rest: str


def parse_timestamp(line: str) -> Timestamp | None:
    """The timestamp at the beginning of a line, or None.

    Args:
        line: without direction marks; its digits may be of any script.
    """
    first = line[:1]
    if not (first == "[" or first.isdigit() or first.isspace()):
        return None
    match = STAMPED.match(line)
    if match is not None:
        bracket, one, two, three, before, hour, minute, second, after, rest = match.groups()
    else:
        match = TIME_FIRST.match(line)
        if match is None:
            return None
        bracket, hour, minute, second, before, one, two, three, after, rest = match.groups()
    clock = _parse_clock(int(hour), int(minute), int(second or 0), before, after)
    return None if clock is None else Timestamp((one, two, three), clock, bracket is not None, rest)


def _parse_clock(hour: int, minute: int, second: int, before: str, after: str) -> int | None:
    if hour > 24 or minute > 59 or second > 60:
        return None
    if after or (before != ", " and before != " "):
        half = NOT_HALF.sub("", f" {after} ".casefold()) or NOT_HALF.sub("", f" {before} ".casefold())
        if half in AFTER_NOON:
            hour += 12 if hour < (11 if half == NOON else 12) else 0
        elif hour == 12 and half in BEFORE_NOON:
            hour = 0
    return (hour * 60 + minute) * 60 + second


def count_days(date: DateNumbers, order: DateOrder) -> int | None:
    """The days since 1970-01-01; None if the numbers are no date in that order.

    Each month may have 31 days, since other calendars have such months and only differences matter. The formula is
    Howard Hinnant's days_from_civil (https://howardhinnant.github.io/date_algorithms.html).
    """
    one, two, three = (int(part) for part in date)
    day, month, year = {"dmy": (one, two, three), "mdy": (two, one, three), "ymd": (three, two, one)}[order]
    digits = len(date[0] if order == "ymd" else date[2])
    if not (1 <= month <= 12 and 1 <= day <= 31) or digits in (1, 3):
        return None
    year += CENTURY if digits == 2 else 0
    year -= month <= 2
    era, of_era = divmod(year, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + day_of_year - 719_468


@dataclass(slots=True)
class _Trial:
    """The evidence for one date order."""

    order: DateOrder
    impossible: int = 0
    backwards: int = 0
    last: int | None = None
    first: int | None = None

    def try_date(self, date: DateNumbers) -> None:
        day = count_days(date, self.order)
        if day is None:
            self.impossible += 1
            return
        if self.last is not None and day < self.last:
            self.backwards += 1
        self.first = day if self.first is None else self.first
        self.last = day

    def compute_cost(self) -> tuple[int, int, int]:
        span = abs(self.last - self.first) if self.last is not None and self.first is not None else 0
        return self.impossible, self.backwards, span


def detect_date_order(dates: Iterable[DateNumbers]) -> DateOrder:
    """Detect the order of day, month and year in a file's dates.

    It is the order with the fewest impossible dates, then with the fewest steps back in time, then with the shortest
    time from the first date to the last; then day before month.
    """
    trials = [_Trial(order) for order in ORDERS]
    before: DateNumbers | None = None
    for date in dates:
        if date != before:
            for trial in trials:
                trial.try_date(date)
            before = date
    return min(trials, key=_Trial.compute_cost).order


class Calendar:
    """Converts timestamps to seconds since 1970.

    Args:
        order: the date order of the file. A date that is impossible in it is read in another order.
    """

    def __init__(self, order: DateOrder):
        self._orders = (order, *(other for other in ORDERS if other != order))
        self._date: DateNumbers | None = None
        self._day: float | None = None

    def to_seconds(self, stamp: Timestamp) -> float | None:
        """The seconds since 1970; None if the date is impossible in every order."""
        if stamp.date != self._date:
            days = (count_days(stamp.date, order) for order in self._orders)
            found = next((day for day in days if day is not None), None)
            self._date, self._day = stamp.date, None if found is None else float(found * DAY_SECONDS)
        return None if self._day is None else self._day + stamp.clock
