"""Bad workbooks, Parquet tables and documents under the wrong name."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from tests.data.readers.bad_inputs.case import CSV, TSV, Bad
from tests.data.readers.bad_inputs.packed import zipped

ROWS = [["question", "answer"], ["Hello", "Hi!"], ["When?", "At nine."], ["Bye", "See you."]]
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(200)
OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
PAGE = b"<!DOCTYPE html>\n<html><head><title>Error</title></head>\n<body><p>Please sign in</p></body></html>\n"


def workbook(rows: list[list[Any]]) -> bytes:
    """A workbook of one sheet."""
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    for row in rows:
        sheet.append(row)
    return _saved(book)


def parquet(columns: dict[str, Any]) -> bytes:
    """A Parquet table."""
    import pyarrow as arrow
    import pyarrow.parquet

    sink = io.BytesIO()
    pyarrow.parquet.write_table(arrow.table(columns), sink)
    return sink.getvalue()


def cases() -> Iterator[Bad]:
    """All of them."""
    yield from _workbooks()
    yield from _hostile_workbooks()
    yield from _parquet()
    yield from _misnamed()


def _saved(book: Any) -> bytes:
    saved = io.BytesIO()
    book.save(saved)
    return saved.getvalue()


def _patched(content: bytes, part: str, old: bytes, new: bytes) -> bytes:
    """A workbook with something else in one of its parts."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = [(name, archive.read(name)) for name in archive.namelist()]
    return zipped(*((name, data.replace(old, new, 1) if name == part else data) for name, data in files))


def _without(content: bytes, part: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return zipped(*((name, archive.read(name)) for name in archive.namelist() if name != part))


def _workbooks() -> Iterator[Bad]:
    import openpyxl
    from openpyxl.chart import BarChart

    good = workbook(ROWS)
    yield Bad("cut.xlsx", good[: len(good) // 2])
    yield Bad("cut-at-the-end.xlsx", good[:-30])
    yield Bad("called-csv.csv", good, 3)
    yield Bad("no-cells.xlsx", workbook([]))
    yield Bad("header-only.xlsx", workbook(ROWS[:1]))
    yield Bad("numbers.xlsx", workbook([["a", "b"], [1, 2.5], [3, 4.5], [5, 9.5]]))
    yield Bad("formulas.xlsx", workbook([*ROWS, ["=A2", "=1+1"], ["fine", "yes"]]), 4, 0)
    yield Bad("only-formulas.xlsx", workbook([ROWS[0], ["=A1", "=B1"]]))
    yield Bad("errors.xlsx", workbook([*ROWS, ["#N/A", "#REF!"], ["#VALUE!", "x"]]), 3)
    odd = [[datetime(2024, 1, 2, 3), Decimal("1.5")], [time(1, 2), timedelta(days=2)], [True, None], [date.min, 10**20]]
    yield Bad("other-types.xlsx", workbook([*ROWS, *odd]), 6)
    book = openpyxl.Workbook()
    book.active.append(["a"])
    book.active.add_chart(BarChart(), "B2")
    chart = book.create_chartsheet("only a chart")
    chart.add_chart(BarChart())
    book.remove(book.worksheets[0])
    yield Bad("only-a-chart.xlsx", _saved(book))
    yield Bad("no-sheets.xlsx", _patched(good, "xl/workbook.xml", b"<sheets>", b"<sheets/><!--"))
    yield Bad("sheet-is-missing.xlsx", _without(good, "xl/worksheets/sheet1.xml"))
    yield Bad("no-workbook.xlsx", _without(good, "xl/workbook.xml"))
    yield Bad("old-office.xls", OLD_OFFICE)
    yield Bad("locked.xlsx", OLD_OFFICE + "EncryptedPackage".encode("utf-16-le") + bytes(300))
    wide = workbook([[f"column {n}" for n in range(1_500)], ["x"] * 1_500])
    yield Bad("wide.xlsx", wide)


def _hostile_workbooks() -> Iterator[Bad]:
    good, part = workbook(ROWS), "xl/worksheets/sheet1.xml"
    far = b'<c r="XFD1048576" t="inlineStr"><is><t>far</t></is></c>'
    yield Bad(
        "a-cell-far-away.xlsx",
        _patched(good, part, b"</sheetData>", b'<row r="1048576">' + far + b"</row></sheetData>"),
        3,
    )
    rows = b"".join(b'<row r="%d"/>' % number for number in range(5, 100_000))
    yield Bad("empty-rows.xlsx", _patched(good, part, b"</sheetData>", rows + b"</sheetData>"), 3, heavy=True)
    yield Bad("says-it-is-huge.xlsx", _patched(good, part, b'ref="A1:B4"', b'ref="A1:XFD1048576"'), 3)
    laughs = b'<!DOCTYPE x [<!ENTITY a "ha">' + b"".join(
        b'<!ENTITY %c "%s">' % (letter, b"&%c;" % (letter - 1) * 10) for letter in b"bcdefghij"
    )
    yield Bad("laughs.xlsx", _patched(good, part, b"<worksheet", laughs + b"]><worksheet"), heavy=True)
    yield Bad("laughs-used.xlsx", _laughing(good, part, laughs), heavy=True)
    entity = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><worksheet'
    stolen = _patched(good, part, b"<worksheet", entity)
    cell = (
        b'<row r="9"><c r="A9" t="inlineStr"><is><t>&e;</t></is></c><c r="B9" t="inlineStr"><is><t>x</t></is></c></row>'
    )
    yield Bad("steals-a-file.xlsx", _patched(stolen, part, b"</sheetData>", cell + b"</sheetData>"))
    yield Bad("broken-xml.xlsx", _patched(good, part, b"<sheetData>", b"<sheetData><row><c>"))
    yield Bad(
        "wrong-string-number.xlsx", _patched(good, part, b't="inlineStr"><is><t>Hello</t></is>', b't="s"><v>9999</v>')
    )
    yield Bad("text-for-a-number.xlsx", _patched(good, part, b't="s"', b't="n"'), 3)
    yield Bad("cell-of-no-place.xlsx", _patched(good, part, b'r="A2"', b'r="?!"'))
    deep = b"<is>" * 50_000
    yield Bad(
        "deep-xml.xlsx",
        _patched(good, part, b"</sheetData>", b'<row r="5"><c t="inlineStr">' + deep + b"</c></row></sheetData>"),
        heavy=True,
    )
    yield Bad(
        "bomb.xlsx",
        lambda path: path.write_bytes(_patched(good, part, b"</sheetData>", b" " * 150_000_000 + b"</sheetData>")),
        heavy=True,
    )


def _laughing(good: bytes, part: str, laughs: bytes) -> bytes:
    cell = b'<row r="9"><c r="A9" t="inlineStr"><is><t>&j;</t></is></c></row></sheetData>'
    return _patched(_patched(good, part, b"<worksheet", laughs + b"]><worksheet"), part, b"</sheetData>", cell)


def _parquet() -> Iterator[Bad]:
    import pyarrow as arrow

    good = parquet({"question": ["Hello", "When?"], "answer": ["Hi!", "At nine."]})
    yield Bad("cut.parquet", good[: len(good) // 2])
    yield Bad("cut-at-the-end.parquet", good[:-5])
    yield Bad("head-only.parquet", b"PAR1")
    yield Bad("damaged.parquet", good[:10] + bytes(40) + good[50:])
    yield Bad("damaged-end.parquet", good[:-60] + bytes(40) + good[-20:])
    yield Bad(
        "no-rows.parquet",
        parquet({"question": arrow.array([], arrow.string()), "answer": arrow.array([], arrow.string())}),
    )
    yield Bad("no-columns.parquet", parquet({}))
    yield Bad("numbers.parquet", parquet({"a": [1, 2, 3], "b": [1.5, float("nan"), float("inf")]}))
    yield Bad("nulls.parquet", parquet({"question": ["Hello", None, "x"], "answer": ["Hi", "y", None]}), 1, 3)
    yield Bad("only-nulls.parquet", parquet({"question": arrow.nulls(3), "answer": arrow.nulls(3)}))
    yield Bad("bytes.parquet", parquet({"question": [b"Hello", b"\xff\xfe"], "answer": [b"Hi", b"\x00"]}), 1, 2)
    yield Bad("not-utf-8.parquet", parquet({"question": _invalid_texts(), "answer": ["a", "b"]}))
    yield Bad(
        "dates.parquet", parquet({"question": [date(2024, 1, 1)] * 2, "answer": [datetime(2024, 1, 1)] * 2}), 2, 2
    )
    yield Bad("far-dates.parquet", parquet({
        "question": arrow.array([2**61, -(2**61)], arrow.timestamp("us")), "answer": ["a", "b"]}))  # fmt: skip
    yield Bad(
        "maps.parquet",
        parquet(
            {"question": arrow.array([[("a", 1)], []], arrow.map_(arrow.string(), arrow.int64())), "answer": ["a", "b"]}
        ),
        1,
        2,
    )
    yield Bad(
        "structs.parquet",
        parquet({"messages": [[{"role": "user", "content": 7}], [{"role": None, "content": None}]]}),
        0,
        2,
    )
    yield Bad("decimals.parquet", parquet({"question": [Decimal("1.5"), None], "answer": [timedelta(1), None]}), 1, 1)
    yield Bad("same-names.parquet", _same_names())

    yield Bad("wide.parquet", parquet({f"c{n}": ["x"] for n in range(2_000)}))
    yield Bad(
        "dictionary.parquet",
        parquet({"question": arrow.array(["a", "b"]).dictionary_encode(), "answer": ["c", "d"]}),
        2,
        2,
    )
    yield Bad("called-parquet.parquet", TSV, 4, "lines")
    yield Bad("called-tsv.tsv", good, 2, 2)
    yield Bad("a.feather", b"ARROW1\0\0" + bytes(80))


def _invalid_texts() -> Any:
    import pyarrow as arrow

    buffers = arrow.array([b"ok", b"\xff\xfe"], arrow.binary()).buffers()
    return arrow.StringArray.from_buffers(2, buffers[1], buffers[2])


def _same_names() -> bytes:
    import pyarrow as arrow
    import pyarrow.parquet

    sink = io.BytesIO()
    table = arrow.Table.from_arrays([arrow.array(["a"]), arrow.array(["b"]), arrow.array(["c"])], names=["x", "x", "x"])
    pyarrow.parquet.write_table(table, sink)
    return sink.getvalue()


def _misnamed() -> Iterator[Bad]:
    heads = {
        "a-picture.tsv": PNG,
        "a-photo.csv": b"\xff\xd8\xff\xe0" + bytes(99),
        "a-gif.jsonl": b"GIF89a" + bytes(99),
        "a-pdf.csv": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n" + b"%%EOF\n",
        "a-program.txt": b"\x7fELF\x02\x01\x01" + bytes(99),
        "a-database.csv": b"SQLite format 3\0" + bytes(99),
        "a-letter.txt": b"{\\rtf1\\ansi Hello\\par}",
        "a-pickle.jsonl": b"\x80\x04\x95\x10\0\0\0\0\0\0\0]\x94(K\x01K\x02e.",
        "a-sound.txt": b"ID3\x04" + bytes(99),
        "a-film.txt": b"\0\0\0\x20ftypisom" + bytes(99),
        "a-page.csv": PAGE,
        "a-page.jsonl": PAGE,
        "a-page.json": PAGE,
        "a-page-in-small-letters.tsv": b"\n  <html>\n<body>\n<div class='message'>Hi</div>\n</body></html>",
        "a-feed.csv": b'<?xml version="1.0"?>\n<chat><message from="a">Hi</message></chat>\n',
        "a-script.jsonl": b"import json\n\nprint(json.dumps(['a', 'b']))\n",
        "settings.tsv": b"[core]\nname = x\n",
        "notes.jsonl": b"# Notes\n\n- one\n- two\n",
        "a.pyc.csv": b"\xa7\r\r\n" + bytes(range(200)),
        "random.tsv": bytes(n * 7919 % 256 for n in range(4_000)),
        "a-tensor.tsv": (64).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  '
        + bytes(400),
        "a-model.txt": b"GGUF\x03\0\0\0" + bytes(200),
    }
    for name, content in heads.items():
        yield Bad(name, content)
    types = b'<?xml version="1.0"?><Types/>'
    documents = {
        "a-text.docx": [("[Content_Types].xml", types), ("word/document.xml", b"<a/>")],
        "slides.pptx": [("[Content_Types].xml", types), ("ppt/presentation.xml", b"<a/>")],
        "sheet.ods": [("mimetype", b"application/vnd.oasis.opendocument.spreadsheet"), ("content.xml", b"<a/>")],
        "a.numbers": [("Index/Document.iwa", b"x")],
        "a.epub": [("mimetype", b"application/epub+zip"), ("a.html", PAGE)],
        "binary.xlsb": [("[Content_Types].xml", types), ("xl/workbook.bin", b"x")],
    }
    for name, files in documents.items():
        yield Bad(name, zipped(*files))
    yield Bad("a-text.csv", zipped(*documents["a-text.docx"]))
    yield Bad("csv-called.xlsx", CSV, 3, "below header")
    yield Bad("csv-called.json", CSV, 3, "below header")
    yield Bad("tsv-called.zip", TSV, 4, "lines")
