"""Formats numbers of bytes and of seconds for people. Pure functions.

Units are decimal: 1 GB is 10**9 bytes and 1 MB is 10**6, as operating systems and the Hub show them.
"""

from __future__ import annotations


def format_bytes(number: float) -> str:
    """Format a number of bytes: "1.5 GB", "269 MB", "12 KB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if number >= factor:
            value = number / factor
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:,.0f} {unit}"
    return f"{number / 1000:.0f} KB"


def format_duration(seconds: float) -> str:
    """Format a duration, rounded as people say it: "7 seconds", "40 seconds", "3 minutes", "2 hours 10 minutes"."""
    if seconds < 55:
        return _count(max(round(seconds), 1) if seconds < 10 else round(seconds / 5) * 5, "second")
    minutes = max(round(seconds / 60), 1)
    if minutes < 60:
        return _count(minutes, "minute")
    hours, rest = divmod(minutes, 60)
    if hours >= 10:
        return _count(round(minutes / 60), "hour")
    return f"{_count(hours, 'hour')} {_count(rest, 'minute')}" if rest else _count(hours, "hour")


def _count(number: int, unit: str) -> str:
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"
