"""PII detection and masking: keys, e-mail addresses, bank accounts, cards, identity numbers, dates of birth, IP and MAC
addresses, phone numbers, street addresses.

Numbers are the hard part: a year, a price, a time, a version or an order number must not be taken for a phone or a
card. So a pattern alone is rarely enough: cards and bank accounts have check digits, IP addresses have reserved ranges,
and a phone number needs an international prefix, a national one, or a word like "call" before it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Literal, get_args

from chat_app.data.quality.pii_identities import find_identities, may_be_identity
from chat_app.data.quality.pii_personal import find_birth_dates, find_streets, may_be_personal
from chat_app.data.quality.pii_phones import find_phones

PrivateKind = Literal[
    "keys", "emails", "bank_accounts", "cards", "identity_numbers", "birth_dates", "machine_addresses", "phones",
    "streets",
]  # fmt: skip
# Where two kinds claim the same characters, the first in this order has them.
PRIVATE_KINDS: tuple[PrivateKind, ...] = get_args(PrivateKind)
PLACEHOLDERS: dict[str, str] = {
    "keys": "[key]",
    "emails": "[e-mail]",
    "bank_accounts": "[account]",
    "cards": "[card]",
    "identity_numbers": "[id]",
    "birth_dates": "[date of birth]",
    "machine_addresses": "[address]",
    "phones": "[phone]",
    "streets": "[street]",
}
LONG_WORD = 16

_DIGITS = re.compile(r"[0-9][0-9 .\-/()]{5,}[0-9]")
_EMAIL = re.compile(r"(?<![\w.%+\-])[\w.%+\-]{1,64}@(?:[^\W_](?:[\w\-]{0,61}[^\W_])?\.){1,6}[^\W\d_]{2,24}(?![\w@])")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
_CARD = re.compile(
    r"(?<![\w.,\-])(?:[0-9]{4}([ -]?)(?:[0-9]{4}\1){2}[0-9]{1,7}|[0-9]{4}([ -]?)[0-9]{6}\2[0-9]{4,5})(?![\w\-])"
)
_ISSUER = re.compile(r"4|5[1-5]|2[2-7]|3[0-9]|6[0-9]")
_IPV4 = re.compile(r"(?<![\w.\-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\w|\.[0-9])")
_VERSION = re.compile(r"(?:\bv|\bver|version|release|section|chapter|§|build)\.? {0,2}$", re.IGNORECASE)
_IPV6 = re.compile(r"(?<![\w:.])([0-9A-Fa-f:]{6,39})(%\w{1,15})?(?![\w:])")
_MAC = re.compile(r"(?<![\w:\-])[0-9A-Fa-f]{2}([:\-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:\-])")
_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[A-Za-z0-9+/=\s\\]*(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?"
    r"|(?<!\w)(?:AKIA|ASIA)[0-9A-Z]{16}(?!\w)"
    r"|(?<!\w)gh[pousr]_[A-Za-z0-9]{30,255}|(?<!\w)github_pat_\w{22,255}"
    r"|(?<![\w\-])sk-[A-Za-z0-9_\-]{20,255}"
    r"|(?<!\w)hf_[A-Za-z0-9]{30,255}"
    r"|(?<!\w)xox[abeoprs]-[A-Za-z0-9\-]{10,255}"
    r"|(?<!\w)AIza[0-9A-Za-z_\-]{35}"
    r"|(?<!\w)eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*"
)
_NAMED_KEY = re.compile(
    r"(?:(?:key|secret|token)[\"']?(?: {0,3}[:=]| is)|bearer) {0,3}[\"']?([A-Za-z0-9+/_\-]{16,512}={0,2})",
    re.IGNORECASE,
)
_PASSWORD = re.compile(
    r"(?:password|passwort|passwd|passphrase|pwd)[\"']?(?: {0,3}[:=]| is) {0,3}[\"']?([^\s\"']{6,128})", re.IGNORECASE
)
# Country and the length of its bank accounts (the IBAN registry of SWIFT).
_IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        "([A-Z]{2})([0-9]{2})",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 "
        "FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 "
        "LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 "
        "SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20",
    )
}


@dataclass(frozen=True, slots=True)
class PrivateSpan:
    """Private data at the characters [start, end)."""

    kind: PrivateKind
    start: int
    end: int


def may_hold_private(text: str) -> bool:
    """A cheap test that most texts fail: False only if `find_private` would find nothing."""
    return (
        "@" in text
        or _DIGITS.search(text) is not None
        or text.count(":") >= 2
        or text.count("-") >= 5
        or max(map(len, text.split()), default=0) >= LONG_WORD
        or _names_password(text)
        or may_be_identity(text)
        or may_be_personal(text)
    )


def find_private(text: str) -> list[PrivateSpan]:
    """All private data in a text, in order, without overlaps."""
    taken: list[PrivateSpan] = []
    for kind in PRIVATE_KINDS:
        starts = [span.start for span in taken]
        free: list[PrivateSpan] = []
        for start, end in sorted(_FINDERS[kind](text)):
            after = bisect_left(starts, start)
            overlaps_next = after < len(taken) and taken[after].start < end
            overlaps_last = after > 0 and taken[after - 1].end > start
            if not overlaps_next and not overlaps_last and not (free and free[-1].end > start):
                free.append(PrivateSpan(kind, start, end))
        taken = sorted([*taken, *free], key=lambda span: span.start)
    return taken


def mask_private(text: str, kinds: Collection[str] = PRIVATE_KINDS) -> str:
    """Replace private data of these kinds by the placeholder of its kind."""
    pieces, end = [], 0
    for span in find_private(text):
        if span.kind in kinds:
            pieces += [text[end : span.start], PLACEHOLDERS[span.kind]]
            end = span.end
    return "".join([*pieces, text[end:]])


def _find_keys(text: str) -> Iterator[tuple[int, int]]:
    for match in _KEY.finditer(text):
        yield match.span()
    for match in _NAMED_KEY.finditer(text):
        if _is_mixed(match[1]):
            yield match.span(1)
    if _names_password(text):
        for match in _PASSWORD.finditer(text):
            if _is_mixed(match[1]):
                yield match.span(1)


def _names_password(text: str) -> bool:
    lower = text.lower()
    return "passw" in lower or "passphrase" in lower or "pwd" in lower


def _is_mixed(secret: str) -> bool:
    """Whether a string has both letters and digits, as keys have and words have not."""
    return any(sign.isdigit() for sign in secret) and any(sign.isalpha() for sign in secret)


def _find_emails(text: str) -> Iterator[tuple[int, int]]:
    if "@" in text:
        yield from (match.span() for match in _EMAIL.finditer(text))


def _find_bank_accounts(text: str) -> Iterator[tuple[int, int]]:
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match[0][:2])
        end = match.start()
        for sign in match[0]:  # the next word may look like another group of the account
            if not length:
                break
            end += 1
            length -= sign != " "
        if length == 0 and not text[end : end + 1].isalnum() and _has_iban_checksum(text[match.start() : end]):
            yield match.start(), end


def _has_iban_checksum(account: str) -> bool:
    """Check the digits of an IBAN: ISO 7064 mod 97-10, as ISO 13616 requires."""
    signs = account.replace(" ", "")
    return int("".join(str(int(sign, 36)) for sign in signs[4:] + signs[:4])) % 97 == 1


def _find_cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _CARD.finditer(text):
        digits = match[0].replace(" ", "").replace("-", "")
        if 13 <= len(digits) <= 19 and _ISSUER.match(digits) and len(set(digits)) > 1 and _has_luhn_checksum(digits):
            yield match.span()


def _has_luhn_checksum(digits: str) -> bool:
    """Check the digits of a card number: ISO/IEC 7812-1, every second digit from the right counts double."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _find_machine_addresses(text: str) -> Iterator[tuple[int, int]]:
    if text.count(".") >= 3:
        for match in _IPV4.finditer(text):
            if _is_ipv4(match[0]) and not _VERSION.search(text, max(match.start() - 12, 0), match.start()):
                yield match.span()
    for match in _MAC.finditer(text):
        if any(sign.isalpha() for sign in match[0]):
            yield match.span()
    if text.count(":") >= 2:
        for match in _IPV6.finditer(text):
            address = match[1] if match[2] else match[1].rstrip(":")
            if _is_ipv6(address):
                yield match.start(), match.start() + len(address) + len(match[2] or "")


def _is_ipv4(spelling: str) -> bool:
    """Whether it is the IPv4 address of a machine; 1.2.3.4 is more likely a version, and 255.255.255.0 is a netmask."""
    try:
        address = IPv4Address(spelling)
    except AddressValueError:
        return False
    is_special = address.is_loopback or address.is_unspecified or address.is_multicast or address.is_reserved
    return not is_special and int(address) >> 24 != 0 and max(map(int, spelling.split("."))) > 9


def _is_ipv6(spelling: str) -> bool:
    """Whether it is an IPv6 address, with enough digits not to be a name in a program such as a::b."""
    if spelling.count(":") < 2 or len(spelling.replace(":", "")) < 7:
        return False
    try:
        IPv6Address(spelling)
    except AddressValueError:
        return False
    return True


_FINDERS: dict[PrivateKind, Callable[[str], Iterator[tuple[int, int]]]] = {
    "keys": _find_keys,
    "emails": _find_emails,
    "bank_accounts": _find_bank_accounts,
    "cards": _find_cards,
    "machine_addresses": _find_machine_addresses,
    "identity_numbers": find_identities,
    "birth_dates": find_birth_dates,
    "phones": find_phones,
    "streets": find_streets,
}
