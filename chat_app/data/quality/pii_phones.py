"""Phone number detection, with the numbering plans of the package phonenumbers."""

from __future__ import annotations

import re
from collections.abc import Iterator

# The numbering plans to try for a number without a country. Germany's accepts nearly any number, so it comes last.
REGIONS = ("US", "GB", "FR", "ES", "IT", "NL", "BE", "CH", "AT", "PL", "AU", "IN", "BR", "JP", "DE")
FEWEST_DIGITS, MOST_DIGITS = 7, 15
CONTEXT = 30

_CANDIDATE = re.compile(
    r"(?<![\w#$€£¥.,:/@=\-])(?:\+ ?)?\(?[0-9](?:[ .\-/()]{0,3}[0-9]){6,16}"
    r"(?!\w|[.,:/\-][0-9]| ?(?:%|\$|€|£|¥|[ap]\.?m\b))"
)
_DATE = re.compile(
    r"(?:19|20)[0-9]{2}([ .\-/])[0-9]{1,2}\1[0-9]{1,2}(?![0-9])"
    r"|[0-9]{1,2}([ .\-/])[0-9]{1,2}\2(?:19|20)[0-9]{2}(?![0-9])"
    r"|(?:(?:19|20)[0-9]{2}[ \-/]{1,3})+(?:19|20)?[0-9]{2}$"
)
_SPOKEN_OF = re.compile(
    r"(?:\b(?:call|calls|phone|telephone|tel|mobile|cell|cellphone|fax|dial|ring|text|sms|whats ?app|hotline|reach|"
    r"telefon|telefonnummer|handy|handynummer|mobil|rufen?|anrufen|téléphone|tél|portable|appelez?|"
    r"teléfono|telefono|móvil|cellulare|llam\w+|telefone|celular)\b[^.!?\n]{0,24})$",
    re.IGNORECASE,
)
_AMERICAN = re.compile(r"\(?[2-9][0-9]{2}(?:\) ?|[ .\-])[2-9][0-9]{2}[ .\-][0-9]{4}")
# A Chinese mobile number needs no context but a Chinese sentence, in which no space stands before it.
_CHINESE = re.compile(r"(?<![\d.+\-])1[3-9][0-9](?:[ \-]?[0-9]{4}){2}(?![\d\-])")
_HAN = re.compile("[\u4e00-\u9fff]")
_TRUNK = re.compile(r"\(?0[1-9]")


def find_phones(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each phone number."""
    for match in _CANDIDATE.finditer(text):
        found = match[0]
        if found.count("(") == found.count(")") + 1 and found.startswith("("):
            continue
        if not _DATE.match(found) and _is_phone(found, text[max(match.start() - CONTEXT, 0) : match.start()]):
            yield match.span()
    for match in _CHINESE.finditer(text):
        if _HAN.search(text, max(match.start() - CONTEXT, 0), match.end() + CONTEXT) and _is_mobile(match[0], "CN"):
            yield match.span()


def _is_phone(found: str, before: str) -> bool:
    digits = "".join(sign for sign in found if sign.isdigit())
    if not FEWEST_DIGITS <= len(digits) <= MOST_DIGITS or len(set(digits)) == 1:
        return False
    if found.startswith("+"):
        return _is_known(found, None)
    if digits.startswith("00"):
        return len(digits) >= 10 and _is_known("+" + digits[2:], None)
    if _AMERICAN.fullmatch(found):
        return True
    if _SPOKEN_OF.search(before):
        return any(_is_known(digits, region) for region in REGIONS) or (len(digits) == 7 and "-" in found)
    if _TRUNK.match(found) and 9 <= len(digits) <= 12:
        return _is_grouped(found) or any(_is_mobile(digits, region) for region in ("GB", "FR"))
    return False


def _is_grouped(found: str) -> bool:
    """Whether it is written in groups of digits and is a valid national number in some region."""
    groups = re.findall("[0-9]+", found)
    return len(groups) > 1 and any(_is_known(found, region, strict=True) for region in REGIONS)


def _is_known(found: str, region: str | None, strict: bool = False) -> bool:
    """Whether a number is valid in a region; without `strict`, whether its length is possible there."""
    import phonenumbers

    try:
        number = phonenumbers.parse(found, region)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_valid_number(number) if strict else phonenumbers.is_possible_number(number)


def _is_mobile(digits: str, region: str) -> bool:
    import phonenumbers

    try:
        number = phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.number_type(number) == phonenumbers.PhoneNumberType.MOBILE
