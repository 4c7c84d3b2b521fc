"""Detection of identity, tax and social security numbers, with the check digits of the package python-stdnum.

A number is taken only if its spelling or the word before it tells what it is: a bare number of nine digits is an order,
a parcel or a telephone more often than a person.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class _Number:
    """A kind of number.

    Attributes:
        module: of stdnum, which checks it; "" where it has no check digit.
        pattern: how it is spelled. A group, if there is one, is the number.
    """

    module: str
    pattern: re.Pattern[str]


def _spelled(module: str, spelling: str) -> _Number:
    return _Number(module, re.compile(rf"(?<![\w.\-]){spelling}(?![\w\-])"))


def _named(module: str, words: str, spelling: str) -> _Number:
    return _Number(
        module, re.compile(rf"\b(?:{words})\b[^\w\n]{{0,4}}(?:is |no\.? |number |nr\.? )?({spelling})(?!\w)", re.I)
    )


_NUMBERS = (
    _spelled("us.ssn", r"[0-9]{3}-[0-9]{2}-[0-9]{4}"),
    _spelled("cn.ric", r"[1-9][0-9]{16}[0-9Xx]"),
    _spelled("br.cpf", r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}"),
    _spelled("es.dni", r"[0-9]{8}-?[A-Z]"),
    _spelled("es.nie", r"[XYZ]-?[0-9]{7}-?[A-Z]"),
    _spelled("it.codicefiscale", r"[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]"),
    _spelled("fi.hetu", r"[0-9]{6}[-+A][0-9]{3}[0-9A-Z]"),
    _spelled("se.personnummer", r"(?:[0-9]{2})?[0-9]{6}[-+][0-9]{4}"),
    _spelled("kr.rrn", r"[0-9]{6}-[0-9]{7}"),
    _spelled("mx.curp", r"[A-Z]{4}[0-9]{6}[HMX][A-Z]{5}[0-9A-Z][0-9]"),
    _spelled("fr.nir", r"[12] ?[0-9]{2} ?[0-9]{2} ?[0-9AB]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}"),
    _spelled("in_.aadhaar", r"[2-9][0-9]{3} [0-9]{4} [0-9]{4}"),
    _spelled("", r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]"),  # United Kingdom.
    _named("us.ssn", "ssn|social security", "[0-9]{9}"),
    _named(
        "de.idnr",
        "steuer-?id|steuerliche identifikationsnummer|idnr|identifikationsnummer",
        "[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{3}",
    ),
    _named("pl.pesel", "pesel", "[0-9]{11}"),
    _named("nl.bsn", "bsn|burgerservicenummer", "[0-9]{9}"),
    _named("ca.sin", "sin|social insurance", "[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3}"),
    _named("au.tfn", "tfn|tax file", "[0-9]{3} ?[0-9]{3} ?[0-9]{3}"),
    _named("gb.nhs", "nhs", "[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4}"),
    _named("", "passport|reisepass|passeport|pasaporte|passaporto|护照", "[A-Z]{0,2}[0-9]{6,9}"),
)  # fmt: skip


_MAY_BE = re.compile("[0-9][0-9A-Z .\\-]{5,}|[0-9]{6}")


def may_be_identity(text: str) -> bool:
    """A cheap test: False only if no number is found."""
    return _MAY_BE.search(text) is not None


def find_identities(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each number."""
    if not may_be_identity(text):
        return
    for number in _NUMBERS:
        for match in number.pattern.finditer(text):
            group = match.re.groups
            if not number.module or _is_valid(number.module, match[group]):
                yield match.span(group)


def _is_valid(module: str, number: str) -> bool:
    """Whether the check digits, and what else a country asks for, hold."""
    return bool(import_module(f"stdnum.{module}").is_valid(number))
