"""Pseudonymization: replaces names of people inside texts by Person 1, Person 2 and so on.

A name is matched as whole words in any case, as the full name or the first name alone. Words that are also names are
not distinguished: with a Will among the people, the verb "will" becomes Person 1, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

# Includes vowel signs of Indian and Thai scripts, which \w does not match, but not those scripts' full stops.
WORD = re.compile(r"[\w\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e]+")
# Separators between the words of a name: "Anna  Weiss", "Anna-Lena", "O'Neil", "anna.weiss".
JOINT = re.compile(r"[^\w\n]{1,3}")
# Scripts without spaces between words, in which a name is matched anywhere.
UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
LONGEST_UNSPACED = 20
# Stop words and titles, which are not replaced as names: they would match everywhere.
LITTLE_WORD_LINES = """
a an and are at be by can do for from go he her him his i in is it just me my no not of on or she so that the they this
to us was we who with yes you your ok bot admin user team group mr mrs ms miss dr prof sir uncle aunt
der die das ein eine ich du er sie es wir ihr und herr frau tante onkel
el la los las un una yo mi y de don doña le les une je tu il elle et mon ma lo gli io o os as um uma eu e het een ik
"""
LITTLE_WORDS = frozenset(LITTLE_WORD_LINES.split())
SHORTEST_NAME = 2
MOST_WORDS = 8


class Pseudonyms:
    """A consistent replacement of names: each person has the same number in all texts.

    Args:
        names: the full names, which are numbered in this order.
    """

    def __init__(self, names: Iterable[str]):
        self._spaced: dict[tuple[str, ...], str] = {}
        self._unspaced: dict[str, str] = {}
        forms: dict[tuple[str, ...], str] = {}
        firsts: dict[tuple[str, ...], str] = {}
        for number, name in enumerate(names, start=1):
            person = f"Person {number}"
            for form in _list_full_forms(name):
                forms.setdefault(form, person)
            first = _find_first_name(name)
            if first:
                firsts.setdefault(first, person)
        # Full names take precedence over first names, and a first name belongs to the first person who has it.
        for form, person in {**firsts, **forms}.items():
            if len(form) == 1 and UNSPACED.fullmatch(form[0]):
                self._unspaced[form[0][:LONGEST_UNSPACED]] = person
            else:
                self._spaced[form] = person
        counts: dict[str, set[int]] = {}
        for form in self._spaced:
            counts.setdefault(form[0], set()).add(len(form))
        # First word of a name -> the numbers of words of the names that begin with it, largest first.
        self._counts = {word: sorted(found, reverse=True) for word, found in counts.items()}
        self._lengths = sorted({len(name) for name in self._unspaced}, reverse=True)

    def replace_names(self, text: str) -> str:
        """Replace the names in a text; an @ before a name stays."""
        if self._unspaced:
            text = UNSPACED.sub(self._replace_in_run, text)
        words = list(WORD.finditer(text))
        pieces: list[str] = []
        at, index = 0, 0
        while index < len(words):
            person, count = self._find_person(text, words, index)
            if person:
                pieces += text[at : words[index].start()], person
                at = words[index + count - 1].end()
            index += count
        return "".join((*pieces, text[at:])) if pieces else text

    def _find_person(self, text: str, words: list[re.Match[str]], index: int) -> tuple[str, int]:
        """Match a name at a word.

        Returns:
            (pseudonym, number of words); ("", 1) if there is no name.
        """
        for count in self._counts.get(words[index].group().casefold(), ()):
            named = words[index : index + count]
            person = self._spaced.get(tuple(word.group().casefold() for word in named))
            joined = pairwise(named)
            # Near the end of a text the slice has fewer words than `count`, and could match a shorter name.
            if (
                person
                and len(named) == count
                and all(JOINT.fullmatch(text, left.end(), right.start()) for left, right in joined)
            ):
                return person, count
        return "", 1

    def _replace_in_run(self, match: re.Match[str]) -> str:
        """Replace the names in a run of an unspaced script, the longest first."""
        run = match.group()
        pieces: list[str] = []
        at = 0
        while at < len(run):
            for length in self._lengths:
                person = self._unspaced.get(run[at : at + length])
                if person:
                    pieces.append(person)
                    at += length
                    break
            else:
                pieces.append(run[at])
                at += 1
        return "".join(pieces)


def _list_full_forms(name: str) -> Iterator[tuple[str, ...]]:
    """The forms of a full name as words; a phone number also as plain digits, as in mentions."""
    words = _split_words(name)
    if not words or (len(words) == 1 and (words[0] in LITTLE_WORDS or len(words[0]) < SHORTEST_NAME)):
        return
    yield words
    digits = "".join(words)
    if len(words) > 1 and digits.isdecimal():
        yield (digits,)


def _find_first_name(name: str) -> tuple[str, ...]:
    """The first name as words, without titles and articles; empty if there is none."""
    parts = [words for part in name.split() if (words := _split_words(part))]
    while parts and all(word in LITTLE_WORDS for word in parts[0]):
        parts.pop(0)
    if not parts or len("".join(parts[0])) < SHORTEST_NAME or "".join(parts[0]).isdecimal():
        return ()
    return parts[0]


def _split_words(name: str) -> tuple[str, ...]:
    return tuple(word.casefold() for word in WORD.findall(name)[:MOST_WORDS])
