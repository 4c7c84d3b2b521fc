"""Sizes of files and memories in words: GB and MB are of ten to the ninth and the sixth, as operating systems and the
Hub show them. Pure."""

from __future__ import annotations


def bytes_in_words(number: float) -> str:
    """A number of bytes: "1.5 GB", "269 MB", "12 KB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if number >= factor:
            value = number / factor
            return f"{value:.1f} {unit}" if value < 9.95 else f"{value:,.0f} {unit}"
    return f"{number / 1000:.0f} KB"
