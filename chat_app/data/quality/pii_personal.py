"""Detection of dates of birth and street addresses. Only what is spelled out as such is found."""

from __future__ import annotations

import re
from collections.abc import Iterator

_DATE = (
    r"[0-9]{1,4}[./\- ][0-9]{1,2}[./\- ][0-9]{1,4}"
    r"|[0-9]{1,2}(?:st|nd|rd|th|\.)? (?:of )?[^\W\d_]{3,10}\.?,? (?:de )?[0-9]{4}"
    r"|[^\W\d_]{3,10}\.? [0-9]{1,2}(?:st|nd|rd|th)?,? [0-9]{4}"
    r"|[0-9]{4} ?[年년] ?[0-9]{1,2} ?[月월] ?[0-9]{1,2} ?[日일号]?"
)
_BORN = (
    r"born(?: on)?|date of birth|birth ?date|d\.?o\.?b\.?|my birthday(?: is)?(?: on)?|geboren(?: am)?|"
    r"geburtsdatum|geb\.|née? le|date de naissance|nacid[oa] el|fecha de nacimiento|nat[oa] il|data di nascita|"
    r"nascid[oa] em|"
    r"出生日期|出生于|生日是?|생년월일|生年月日"
)
_BIRTH = re.compile(rf"(?<!\w)(?:{_BORN})[^\w\n]{{0,3}}(?:is |was |: )?({_DATE})(?![\w/])", re.IGNORECASE)

_CAPITAL = r"(?:[A-ZÀ-ÖØ-Þ][\w'’.\-]{0,30} ){1,4}"
_WAYS = (
    "Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Place|Square|Terrace|Crescent|Close|"
    "Highway|Parkway"
)
_STREETS = (
    re.compile(rf"(?<![\w.,$€£#/\-])[0-9]{{1,5}}[A-Za-z]?,? {_CAPITAL}(?:{_WAYS})(?![\w'’])\.?"),
    re.compile(
        r"(?<!\w)[A-ZÄÖÜ][\wäöüß\-]{1,30}(?:straße|strasse|str\.|gasse|allee|platz|damm|ufer|weg|ring)"
        r" ?[0-9]{1,4}(?: ?[a-z])?(?!\w)"
    ),
    re.compile(
        r"(?<![\w.,])[0-9]{1,4}(?: ?bis| ?ter)?,? (?:rue|avenue|boulevard|chemin|impasse|quai|allée)"
        r" (?:(?:de|du|des|la|le|les|d['’]|l['’]) ?){0,2}[A-ZÀ-Þ][\w\-'’]{1,30}(?: [A-ZÀ-Þ][\w\-]{1,30})?"
    ),
    re.compile(
        r"(?<!\w)(?:Calle|C/|Avenida|Avda\.|Plaza|Paseo|Via|Viale|Piazza|Corso|Rua)"
        r" (?:(?:de|la|del|los|las|da|do|dei) ){0,2}"
        r"[A-ZÀ-Þ][\w\-]{1,30}(?: [A-ZÀ-Þ][\w\-]{1,30}){0,2},? (?:n[.º°]? ?)?[0-9]{1,4}(?!\w)"
    ),
    re.compile(r"(?:(?![在住于到是])[\u4e00-\u9fff]){2,12}(?:路|街|大道|巷|弄)[0-9]{1,5}号(?:[0-9]{1,4}(?:室|楼|单元))?"),
)  # fmt: skip
# In small letters. One of them is in each text in which something is found.
_STEMS = (
    "born", "birth", "dob", "d.o", "gebor", "geburt", "geb.", "née le", "né le", "naissance", "nacid", "nato il",
    "nata il", "nascita", "nascid", "出生", "生日", "생년월일", "生年月日",
    "street", " st", "avenue", " ave", "road", " rd", "lane", " ln", "drive", " dr", "boulevard", "blvd", "court",
    " ct", "place", "square", "terrace", "crescent", "close", "highway", "parkway",
    "straße", "strasse", "str.", "gasse", "allee", "platz", "damm", "ufer", "weg", "ring",
    "rue", "chemin", "impasse", "quai", "allée", "calle", "c/", "avenida", "avda", "plaza", "paseo", "via", "piazza",
    "corso", "rua", "路", "街", "大道", "巷", "弄",
)  # fmt: skip
_DIGIT = re.compile("[0-9]")


def may_be_personal(text: str) -> bool:
    """A cheap test: False only if neither a date of birth nor a street is found."""
    if _DIGIT.search(text) is None:
        return False
    small = text.lower()
    return any(stem in small for stem in _STEMS)


def find_birth_dates(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each date that is said to be a date of birth."""
    for match in _BIRTH.finditer(text):
        yield match.span(1)


def find_streets(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each street with the number of a house."""
    for street in _STREETS:
        for match in street.finditer(text):
            yield match.span()
