"""The encoding of a text whose bytes are not UTF-8, and what a person says about it. Knows bytes; knows no files."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable

from chat_app.errors import SettingError

SAMPLE_BYTES = 1 << 16
PLAIN = b"\t" + bytes(range(0x20, 0x7F))
# What switches between alphabets in texts of seven bits: ISO-2022 in Japanese, Korean and Chinese, and HZ.
ESCAPES = (b"\x1b$", b"\x1b(", b"~{")
# In a Latin text the bytes beyond ASCII stand by themselves inside words; those of other scripts stand in rows.
BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")
ALONE_SHARE = 0.8
ANY_LATIN = "cp1252"
# The decoder with more characters, where the one with the name that was found cannot read all of a text.
WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "tis-620": "cp874",
         "iso8859-1": "cp1252", "iso8859-11": "cp874"}  # fmt: skip

# What people's programs write. Others are believed only where none of these is nearly as likely.
COMMON = frozenset((
    "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp874", "cp866", "cp852", "cp855",
    "iso8859-1", "iso8859-2", "iso8859-5", "iso8859-6", "iso8859-7", "iso8859-8", "iso8859-9", "iso8859-15", "koi8-r",
    "koi8-u", "mac-cyrillic", "mac-roman", "big5", "big5hkscs", "gb18030", "gb2312", "gbk", "cp932", "shift_jis",
    "euc_jp", "cp949", "euc_kr", "johab", "iso2022_jp", "iso2022_kr", "hz",
))  # fmt: skip
MAINFRAMES = ("cp037", "cp500", "cp1140", "cp273", "cp424", "cp875", "cp1026")
NEARLY, LEAST_CONFIDENCE = 0.6, 0.005


def check_encoding(name: str) -> str:
    """What Python calls an encoding that a person named; empty for an empty name.

    Raises:
        SettingError: there is no such encoding of text.
    """
    name = name.strip()
    if not name:
        return ""
    try:
        codec = codecs.lookup(name)
        "".encode(codec.name)  # refused by what is no encoding of text, such as base64
    except (LookupError, ValueError, TypeError) as error:
        advice = "Write it as utf-8, cp1250, iso-8859-2, shift_jis or gb18030, for example."
        raise SettingError("encoding", f"There is no encoding '{name[:40]}'.", advice=advice) from error
    return codec.name


def holds_escapes(head: bytes) -> bool:
    """Whether a text of seven bits may switch between alphabets."""
    return any(escape in head for escape in ESCAPES)


def detect_encoding(lines: Iterable[bytes | None]) -> str | None:
    """The encoding of lines that are not all UTF-8; None if there is no telling.

    "utf-8" if most lines with more than ASCII are UTF-8: then the others are broken, each by itself. So they are if
    there is no telling, and most lines are plain text.
    """
    good, bad, plain, escaped, size = 0, 0, 0, False, 0
    sample: list[bytes] = []
    for line in lines:
        if line is None or line.isascii():
            plain += bool(line and not line.translate(None, PLAIN))
            if line and not bad and holds_escapes(line) and size < SAMPLE_BYTES:
                escaped = True
                sample.append(line)
                size += len(line)
            continue
        try:
            line.decode("utf-8")
            good += 1
        except UnicodeDecodeError:
            bad += 1
            if size < SAMPLE_BYTES:
                sample.append(line)
                size += len(line)
    if good > bad or not sample:
        return "utf-8"
    text = b"\n".join(sample)
    found = _guess_encoding(text)
    if escaped and not bad:
        return found if found and found.startswith(("iso2022", "hz")) and _decodes(text, found) else "utf-8"
    return found or ("utf-8" if good + plain > bad else None)


def _guess_encoding(text: bytes) -> str | None:
    """The likeliest encoding of a text; of one that is rarely met only where no common one is nearly as likely."""
    import chardet  # needed for few files

    likely: list[tuple[float, str]] = []
    for one in chardet.detect_all(text):
        found = _choose_decoder(text, one["encoding"] or "")
        if found and one["confidence"] >= LEAST_CONFIDENCE:
            likely.append((one["confidence"], found))
    if not likely:
        return None
    best, found = likely[0]
    if found not in COMMON:
        found = next((name for confidence, name in likely if name in COMMON and confidence >= NEARLY * best), found)
    return ANY_LATIN if _has_lone_marks(text) and not _is_latin(text, found) and _decodes(text, ANY_LATIN) else found


def _choose_decoder(text: bytes, name: str) -> str:
    """The decoder of that name if it reads all of the text, or the wider one; empty if neither does."""
    try:
        found = codecs.lookup(name).name
    except LookupError:  # a name that Python has no decoder for
        return ""
    if found == "ascii" or found.startswith(("utf", *MAINFRAMES)):
        return ""
    return next((one for one in (found, WIDER.get(found, "")) if one and _decodes(text, one)), "")


def _has_lone_marks(text: bytes) -> bool:
    """Whether nearly every byte beyond ASCII stands by itself, as a letter with a mark does in a Latin text."""
    rows = BEYOND_ASCII.findall(text)
    return bool(rows) and sum(len(row) == 1 for row in rows) >= ALONE_SHARE * len(rows)


def _is_latin(text: bytes, encoding: str) -> bool:
    """Whether what is beyond ASCII comes out as Latin letters, signs and punctuation."""
    shown = text.decode(encoding, "replace")
    return all(sign < "\u0250" or not sign.isalpha() for sign in shown)


def _decodes(text: bytes, encoding: str) -> bool:
    try:
        text.decode(encoding)
    except UnicodeError:
        return False
    return True
