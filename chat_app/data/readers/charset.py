"""Which encoding a text that is not UTF-8 has. A guess, made on the lines that are not ASCII; knows no files."""

from __future__ import annotations

from collections.abc import Iterable

SAMPLE_BYTES = 1 << 16
# What spreadsheets and editors write where UTF-8 is not the default. Rarer ones would be guessed wrongly more often
# than rightly: with all that charset-normalizer knows, a line of French is taken for Macintosh Latin 2.
CANDIDATES = [
    "cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256",
    "gb18030", "big5", "cp932", "euc_jp", "cp949",
]  # fmt: skip
PLAIN = b"\t" + bytes(range(0x20, 0x7F))
WESTERN = frozenset("àâäáãåæçèéêëìíîïñòóôöõøœùúûüýÿßÀÂÄÁÃÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÖÕØŒÙÚÛÜÝŸ‘’“”‚„«»‹›–—…•€£¥¢§°©®™¡¿ªº·´¨ \xa0")
WESTERN_SHARE = 1 / 3


def foreign_encoding(lines: Iterable[bytes | None]) -> str | None:
    """The encoding of lines that are not all UTF-8; None if there is no telling.

    "utf-8" if most lines with more than ASCII are UTF-8: then the others are broken, each by itself. So they are if
    there is no telling, and most lines are plain text.
    """
    good, bad, plain, sample, size = 0, 0, 0, [], 0
    for line in lines:
        if line is None or line.isascii():
            plain += bool(line and not line.translate(None, PLAIN))
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
    if _is_western(text):
        return "cp1252"
    return _guessed(text) or ("utf-8" if good + plain > bad else None)


def _is_western(text: bytes) -> bool:
    """Text of Western Europe, which statistics on a few accents take for a dozen other encodings."""
    if sum(byte > 127 for byte in text) > WESTERN_SHARE * len(text.translate(None, b" \t\n")):
        return False
    try:
        shown = text.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return all(sign in WESTERN or (sign < "\x7f" and (sign >= " " or sign in "\t\n")) for sign in shown)


def _guessed(text: bytes) -> str | None:
    from charset_normalizer import from_bytes  # needed for few files, and slow to import

    best = from_bytes(text, cp_isolation=CANDIDATES, enable_fallback=False).best()
    return best.encoding if best else None
