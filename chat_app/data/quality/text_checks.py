"""Checks of a single text: whether it is readable, phrase loops, and mojibake with its repair."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from chat_app.data.quality.markup import repeat_until_stable

LONGEST_PHRASE = 16  # words
FEWEST_REPEATS = 4
FEWEST_LOOPED = 8  # words
LONG_WORD = 40  # characters: loops are sought inside longer words, too, which serves languages without spaces
MAX_LETTERS = 4_000

_LETTER = re.compile("[^\\W_\u115f\u1160\u3164\uffa0]")
_BLANKS = "\u2800\ufffd"  # an empty Braille cell; the replacement character
# The first byte of a UTF-8 character, read as Latin 1 or Windows-1252, as Windows-1251, and as CP437 or Macintosh.
_FIRST = "\u00c2-\u00f4" + "РСГДТвгр" + "├┬┼─╞╟╨╤Γπσ√¬‚‰"
# A later byte of it, read in the same encodings.
_LATER = "\u0080-\u00ff" + "Œ-ƒˆ˜–-⁄€™" + "Ђ-Џђ-џҐґ" + "∀-⋿═-╬░-▓"
_MIXED_UP = re.compile(f"[{_FIRST}][{_LATER}]|[\u0080-\u009f]")


def is_readable(text: str) -> bool:
    """Whether there is anything to read: a letter, a digit or a picture such as an emoji."""
    if _LETTER.search(text):
        return True
    return any(unicodedata.category(sign) == "So" and sign not in _BLANKS for sign in text)


def find_loop(text: str) -> tuple[int, int] | None:
    """(start, end) in characters of the first loop, or None.

    A loop is a phrase of up to 16 words that occurs at least four times in a row and has eight words or more in all, or
    the same with the characters of a very long word.
    """
    if len(text) < 2 * FEWEST_LOOPED:
        return None
    said = text.casefold().split()
    if len(said) - len(set(said)) >= FEWEST_LOOPED - 2:
        found = _find_repeat(said, FEWEST_LOOPED)
        if found:
            return _find_character_span(text, *found)
    if max(map(len, said), default=0) <= LONG_WORD:
        return None
    for word in said:
        found = _find_repeat(list(word[:MAX_LETTERS]), LONG_WORD) if len(word) > LONG_WORD else None
        if found and is_readable(word[found[0] : found[1]]):
            start = text.casefold().find(word)
            return min(start + found[0], len(text)), min(start + found[1], len(text))
    return None


def is_mojibake(text: str) -> bool:
    """Whether the text was decoded with a wrong encoding (é became Ã©) and can be repaired."""
    return repair_encoding(text) != text


def repair_encoding(text: str) -> str:
    """The text with mojibake decoded by the right encoding."""
    if text.isascii() or not _MIXED_UP.search(text):
        return text
    import ftfy

    return repeat_until_stable(text, lambda one: str(ftfy.fix_encoding(one)) if _MIXED_UP.search(one) else one)


def _find_repeat(said: list[str], fewest: int) -> tuple[int, int] | None:
    """(first, end) of the first periodic run of items: each equals the item `period` before it, often enough."""
    last: dict[str, int] = {}
    gaps: Counter[int] = Counter()
    for place, item in enumerate(said):
        gap = place - last.get(item, -LONGEST_PHRASE - 1)
        if gap <= LONGEST_PHRASE:
            gaps[gap] += 1
        last[item] = place
    for period in sorted(gaps):
        if gaps[period] < FEWEST_REPEATS - 1:
            continue
        needed = max((FEWEST_REPEATS - 1) * period, fewest - period)
        run = 0
        for place in range(period, len(said)):
            run = run + 1 if said[place] == said[place - period] else 0
            if run >= needed:
                return place - run - period + 1, place + 1
    return None


def _find_character_span(text: str, first: int, end: int) -> tuple[int, int]:
    """The characters (start, end) that the words [first, end) take in the text."""
    places = [match.span() for _, match in zip(range(end), re.finditer(r"\S+", text), strict=False)]
    if len(places) < end:
        return 0, len(text)
    return places[first][0], places[end - 1][1]
