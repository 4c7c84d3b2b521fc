"""Bad files of lines: bytes, encodings, controls, sizes."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path

from tests.data.readers.bad_inputs.case import CSV, JSON, JSONL, TSV, Bad, jsonl, lines

EMPTY_ENDINGS = ("tsv", "csv", "txt", "jsonl", "json", "gz", "zip", "xlsx", "parquet", "psv", "tab", "ndjson", "md", "")
WIDE = "Hello\tHi!\nWhen do you open?\tAt nine.\n"


def cases() -> Iterator[Bad]:
    """All of them."""
    yield from _empty()
    yield from _truncated()
    yield from _encodings()
    yield from _characters()
    yield from _tables()
    yield from _sizes()


def _empty() -> Iterator[Bad]:
    for ending in EMPTY_ENDINGS:
        yield Bad(f"empty.{ending}".rstrip("."), b"")
    for ending in ("tsv", "csv", "jsonl", "json", "txt"):
        yield Bad(f"spaces.{ending}", b"  \n\t\n \r\n\n   ")
        yield Bad(f"only-a-mark.{ending}", codecs.BOM_UTF8)
    yield Bad("only-a-mark-16.txt", codecs.BOM_UTF16_LE)
    yield Bad("only-a-mark-32.txt", codecs.BOM_UTF32_LE)
    yield Bad("only-ends-of-lines.tsv", b"\n" * 5_000)
    yield Bad("only-tabs.tsv", b"\t\t\t\n" * 50, accounts="lines")
    yield Bad("only-commas.csv", b",,,\n" * 50)
    yield Bad("only-quotes.csv", b'"",""\n' * 20)


def _truncated() -> Iterator[Bad]:
    yield Bad("cut-in-a-reply.tsv", TSV[:-5], 4, "lines")
    yield Bad("cut-before-a-reply.tsv", TSV[: TSV.rindex(b"\t")], 3, "lines")
    yield Bad("cut-in-a-quote.csv", CSV + b'"How much,', 3, "below header")
    yield Bad("cut-in-the-header.csv", b"quest")
    yield Bad("cut-in-a-line.jsonl", JSONL[:-8], 2, "lines")
    yield Bad("cut-in-a-key.jsonl", JSONL + b'{"pro', 3, "lines")
    yield Bad("cut-in-the-middle.json", JSON[: len(JSON) // 2])
    yield Bad("cut-before-the-end.json", JSON[:-1])
    yield Bad("cut-in-a-character.tsv", TSV + "ä\tö\n".encode() * 2 + "Ä\tÖ".encode()[:-1], 6, "lines")
    yield Bad("cut-in-an-escape.jsonl", JSONL + b'["a", "\\u00', 3, "lines")
    wide = codecs.BOM_UTF16_LE + TSV.decode().encode("utf-16-le")
    yield Bad("cut-in-a-character-16.tsv", wide[:-3], 4)
    yield Bad("cut-in-half-16.tsv", wide[: len(wide) // 2 + 1], 2)


def _encodings() -> Iterator[Bad]:
    accented = "Können Sie mir helfen?\tNatürlich, gern.\nWie heißt du?\tFrüher hieß ich Jörg.\n"
    yield Bad("latin-1.tsv", accented.encode("latin-1"), 2, "lines")
    yield Bad("latin-1-in-one-line.tsv", TSV + "schön\tja\n".encode("latin-1"), 5, "lines")
    yield Bad("latin-1-in-one-line.csv", CSV + "schön,ja\n".encode("latin-1"), 4, "below header")
    yield Bad("latin-1-in-one-line.jsonl", JSONL + '["schön", "ja"]\n'.encode("latin-1"), 4, "lines")
    yield Bad(
        "windows.csv", "Frage;Antwort\nWie viel kostet das?;5 €\nSchön!;„Danke“\n".encode("cp1252"), 2, "below header"
    )
    yield Bad("utf-16-without-a-mark.tsv", WIDE.encode("utf-16-le"), 2)
    yield Bad("utf-16-big-without-a-mark.tsv", WIDE.encode("utf-16-be"), 2)
    yield Bad("utf-16-odd-length.tsv", codecs.BOM_UTF16_LE + WIDE.encode("utf-16-le") + b"x", 2)
    yield Bad("utf-16-lone-surrogate.tsv", codecs.BOM_UTF16_LE + "a\tb\nc".encode("utf-16-le") + b"\x00\xd8"
              + "\td\n".encode("utf-16-le"), 2)  # fmt: skip
    yield Bad("utf-16-of-japanese.tsv", codecs.BOM_UTF16_LE + "こんにちは\tはい\n".encode("utf-16-le"), 1)
    yield Bad(
        "utf-16-of-japanese-without-a-mark.tsv", "こんにちは、元気ですか\tはい、元気です\n".encode("utf-16-le") * 5
    )
    yield Bad("utf-32.tsv", codecs.BOM_UTF32_LE + WIDE.encode("utf-32-le"), 2)
    yield Bad("utf-32-without-a-mark.tsv", WIDE.encode("utf-32-le"), 2)
    yield Bad("utf-16-mark-of-the-other-end.tsv", codecs.BOM_UTF16_BE + WIDE.encode("utf-16-le"))
    yield Bad("ebcdic.tsv", "Hello there\tHi\nHow are you?\tFine, thank you\n".encode("cp500"))
    yield Bad("overlong.tsv", TSV + b"over\xc0\xaflong\tyes\n", 5, "lines")
    yield Bad("overlong-nul.jsonl", JSONL + b'["a\xc0\x80", "b"]\n', 3, "lines")
    yield Bad("surrogates-as-bytes.tsv", TSV + b"half \xed\xa0\x80\tyes\n", 5, "lines")
    yield Bad("broken-characters-in-one-line.tsv", TSV + b"\x81\t\x8d\n", 4, "lines")
    yield Bad("five-bytes.tsv", TSV + b"\xf8\x88\x80\x80\x80\tyes\n", 5, "lines")
    yield Bad("two-encodings.tsv", "é\tü\n".encode() * 3 + "à\tö\n".encode("latin-1") * 2, 3, "lines")
    yield Bad("two-marks.tsv", codecs.BOM_UTF8 * 2 + TSV, 4, "lines")
    yield Bad("utf-7.tsv", b"Gr+APwA3w-e\tHallo\n" * 2, 2, "lines")
    yield Bad(
        "shift-jis.csv",
        "質問,返答\nこんにちは,はい\n今日はいい天気ですね,そうですね\n".encode("cp932"),
        2,
        "below header",
    )
    yield Bad("cyrillic.tsv", ("Привет, как дела?\tХорошо, спасибо.\n" * 3).encode("cp1251"), 3, "lines")


def _characters() -> Iterator[Bad]:
    yield Bad("one-nul.tsv", TSV + b"a\0b\tc\n", 4, "lines")
    yield Bad("one-nul.csv", CSV + b"a\0b,c\n", 3, "below header")
    yield Bad("escaped-nul.jsonl", JSONL + b'["a\\u0000", "b"]\n', 3, "lines")
    yield Bad("raw-nul.jsonl", JSONL + b'["a\0", "b"]\n', 3, "lines")
    yield Bad("nuls.tsv", TSV + b"\0" * 500)
    yield Bad("only-nuls.txt", b"\0" * 4_096)
    yield Bad("nuls-later.tsv", TSV * 5_000 + b"\0" * 3_000 + b"\n" + TSV, 20_004, "lines")
    yield Bad("controls.tsv", TSV + bytes(range(1, 9)) + b"\tok\x1b[31m red\x07\n", 5, "lines")
    yield Bad("controls.jsonl", JSONL + b'["tab\there", "b"]\n', 3, "lines")
    yield Bad("right-to-left.tsv", TSV + "\u202egpj.exe\u202c\t\u2066ok\u2069\n".encode(), 5, "lines")
    yield Bad("invisible.tsv", TSV + "\u200b\u2060\ufeff\t\u00ad\n".encode(), 5, "lines")
    yield Bad("no-break-spaces.tsv", TSV + "\u00a0\u3000\t\u2003\n".encode(), 4, "lines")
    yield Bad("line-separators.jsonl", JSONL + '["a\u2028b", "c\u0085d"]\n'.encode(), 4, "lines")
    yield Bad("stacked-accents.tsv", ("Z" + "\u0301" * 5_000 + "\tok\n").encode(), 1, "lines")
    yield Bad("lone-surrogate.jsonl", JSONL + b'["\\ud800", "b"]\n["\\udc00\\ud800", "b"]\n', 3, "lines")
    yield Bad("lone-surrogate-in-a-key.jsonl", JSONL + b'{"\\ud800": "a", "prompt": "b"}\n', 3, "lines")
    yield Bad("lone-surrogate.json", b'[\n["a", "\\ud800"],\n["c", "d"]\n]\n')
    yield Bad("noncharacters.tsv", TSV + "\uffff\ufffe\t\U0010ffff\n".encode(), 5, "lines")
    yield Bad("old-mac.tsv", TSV.replace(b"\n", b"\r"), 4, "lines")
    yield Bad("mixed-ends.tsv", b"a\tb\r\nc\td\re\tf\n\rg\th", 4, "lines")
    yield Bad(
        "injection.tsv",
        lines('=HYPERLINK("http://x","y")\t@SUM(A1:A9)', "+1\t-2", "=cmd|' /C calc'!A0\tno"),
        3,
        "lines",
    )
    yield Bad(
        "markup.tsv",
        lines("<script>alert(1)</script>\t<|End|> [INST] ### Human:", "a\t<img src=x onerror=y>"),
        2,
        "lines",
    )
    yield Bad("separators-only.tsv", lines(" EOS \ta", "EOS EOS EOS\tb", "x EOS  EOS y\tz", "q EOS \tr"), 2, "lines")


def _tables() -> Iterator[Bad]:
    yield Bad("header-only.tsv", b"context\treply\n")
    yield Bad("header-only.csv", b"question,answer\n")
    yield Bad("header-twice.csv", b"question,answer\nquestion,answer\nHello,Hi\n", 2, "below header")
    yield Bad("one-column.csv", b"question\nHello\nWhen?\n")
    yield Bad("numbers-only.csv", b"a,b\n1,2\n3,4\n5,6\n")
    yield Bad(
        "mixed-delimiters.csv",
        b"question,answer\nHello,Hi\nWhen?;At nine\nWho?|Me\nWhy?\tSo\nBye,See you\n",
        2,
        "below header",
    )
    yield Bad("mixed-delimiters.tsv", b"Hello\tHi\nWhen?,At nine\nWho?;Me\nBye\tSee you\n", 2, "lines")
    yield Bad("quotes-inside.csv", b'question,answer\nShe said "no",Why?\n"a"b,c\n"d" e,"f"\n', 3, "below header")
    yield Bad("quote-never-closed.csv", CSV + b'"Hello,Hi\n' + b"a,b\n" * 40, 43, "below header")
    yield Bad(
        "quote-closed-far-below.csv",
        b'question,answer\n"Hello,Hi\n' + b"a,b\n" * 2_500 + b'end",x\n',
        2_501,
        "below header",
    )
    yield Bad("backslashes.csv", b'question,answer\n"a \\"b\\" c",d\n"e\\\\",f\n"g\\,h\n', 2, "below header")
    yield Bad("ragged.csv", b"question,answer\na\na,b,c\na,b,,,\n,b\na,\n,,\na,b\n", 2)
    yield Bad("empty-names.csv", b",,\na,b,c\nd,e,f\n")
    yield Bad("same-names.csv", b"answer,answer,answer\na,b,c\nd,e,f\n")
    yield Bad("separator-line-only.csv", b"sep=;\n")
    yield Bad("separator-line.csv", b"sep=;\nquestion;answer\nHello;Hi, you\n", 1)
    yield Bad("formulas.csv", b"question,answer\n=1+1,@x\n'=a,-b\n", 2, "below header")
    yield Bad("wide.tsv", b"\t".join([b"a"] * 10_000) + b"\n" + TSV, 4, "lines")
    yield Bad("wide.csv", b",".join([b"a"] * 10_000) + b"\n" + b",".join([b"b"] * 10_000) + b"\n")
    yield Bad(
        "wide-header.csv",
        b",".join(b"c%d" % n for n in range(10_000)) + b"\n" + b"Hello?,Hi!\nWhen?,At nine.\nBye.,See you.\n",
        3,
        "lines",
    )
    yield Bad("wide-object.jsonl", json.dumps({f"k{n}": "v" for n in range(10_000)}).encode())
    yield Bad("pipe-art.txt", b"+----+----+\n| a  | b  |\n+----+----+\n| hi | yo |\n+----+----+\n")


def _sizes() -> Iterator[Bad]:
    def long_line(path: Path) -> None:
        with path.open("wb") as file:
            file.write(TSV if path.suffix != ".jsonl" else JSONL)
            head, tail = (b'["', b'", "b"]\n') if path.suffix == ".jsonl" else (b"x", b"\ty\n")
            file.write(head)
            for _ in range(50):
                file.write(b"a" * 1_000_000)
            file.write(tail)
            file.write(TSV if path.suffix != ".jsonl" else JSONL)

    yield Bad("line-of-50-mb.tsv", long_line, 8, 9, heavy=True)
    yield Bad("line-of-50-mb.jsonl", long_line, 6, 7, heavy=True)
    yield Bad(
        "line-of-50-mb.csv", lambda path: path.write_bytes(CSV + b"a" * 50_000_000 + b",b\n" + CSV[16:]), 6, heavy=True
    )
    yield Bad("only-a-line-of-50-mb.txt", lambda path: path.write_bytes(b"a" * 50_000_000), heavy=True)
    yield Bad("only-a-line-of-50-mb.json", lambda path: path.write_bytes(b'["' + b"a" * 50_000_000), heavy=True)
    yield Bad("deep.json", b"[" * 1_000_000, heavy=True)
    yield Bad("deep-and-closed.json", b"[" * 1_000_000 + b"]" * 1_000_000, heavy=True)
    yield Bad("deep-objects.json", b'{"a":' * 500_000 + b"1" + b"}" * 500_000, heavy=True)
    yield Bad("deep-over-lines.json", b"[\n" * 200_000 + b"]\n" * 200_000, heavy=True)
    yield Bad("deep.jsonl", JSONL + b"[" * 5_000 + b'"a"' + b"]" * 5_000 + b"\n", 3, "lines")
    yield Bad("deep-cell.csv", CSV + b'"' + b"[" * 100_000 + b"]" * 100_000 + b'",b\n', 4, "below header")
    yield Bad("deep-printed-cells.csv", b"dialog\n" + b'"' + b"['a', " * 50_000 + b'"\n')
    yield Bad("many-turns.jsonl", jsonl(["a", "b"] * 2_500, ["a", "b"]), 1, "lines")
    yield Bad("one-letter-turns.jsonl", JSONL + jsonl(["x"] * 100_000), 3, "lines")
    yield Bad("one-letter-turns.tsv", TSV + b" EOS ".join([b"x"] * 100_000) + b"\ty\n", 4, "lines")
    yield Bad("one-letter-lines.txt", b"x\n" * 20_000, 0, "lines")
    yield Bad("many-ids.csv", _many_ids, 30_000, heavy=True)
    yield Bad(
        "one-id.csv", lambda path: path.write_bytes(b"conversation,speaker,text\n" + b"1,user,a\n1,bot,b\n" * 5_000)
    )
    yield Bad("long-words.tsv", b"a" * 500_000 + b"\t" + b"@" * 100_000 + b"\n", 1, "lines")
    yield Bad("long-digits.tsv", b"1 " * 100_000 + b"\t" + b"9" * 100_000 + b"\n", 1, "lines")
    yield Bad("long-number.json", b'[["a", ' + b"9" * 100_000 + b'], ["a", "b"]]')
    yield Bad("million-keys.jsonl", b"{" + b",".join(b'"%d":0' % n for n in range(100_000)) + b"}\n")


def _many_ids(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"conversation_id,speaker,text\n")
        for number in range(30_000):
            file.write(b"%d,user,hello %d\n%d,bot,hi\n" % (number, number, number))
