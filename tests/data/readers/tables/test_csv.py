"""CSV and its relatives: how cells are separated and quoted, and what goes wrong with that."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.tables import column_plan, tsv
from chat_app.data.readers.tables import csv as delimited
from chat_app.data.readers.tables.csv import Dialect, detect_dialect
from chat_app.data.readers.text_source import open_source
from chat_app.data.readers.types import Column, Located, Problem
from chat_app.errors import DataError
from tests.data.readers.items import shown, spoken

FIXTURE_REUSED = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[Located | Problem]]:
    """Reads text as a delimited file, or as tab-separated lines where it is no table."""

    def reading(text: str | bytes, name: str = "a.csv", **said: Any) -> list[Located | Problem]:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        source, options = open_source(path), ReadingOptions(**said)
        dialect = detect_dialect(source)
        if dialect is None:
            return list(tsv.read_conversations(source.read_lines(), source.name, options))
        return list(delimited.read_conversations(source, dialect, options))

    return reading


def dialect(tmp_path: Path, text: str, name: str = "a.txt") -> Dialect | None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return detect_dialect(open_source(path))


def test_delimiters_are_recognised(read: Callable[..., Any]) -> None:
    for sign in ",;|\x1f":
        assert spoken(read(f"question{sign}answer\na b{sign}c d\ne{sign}f\n")) == [["a b", "c d"], ["e", "f"]]
        assert spoken(read(f"Who?{sign}Me.\ne{sign}f\n", "a.txt")) == [["Who?", "Me."], ["e", "f"]]
    assert spoken(read('sep=;\n"Tea; or not?";Tea.\n')) == [["Tea; or not?", "Tea."]]
    assert spoken(read("Frage;Antwort\nHallo, du;Gut, danke\n")) == [["Hallo, du", "Gut, danke"]]
    assert spoken(read('"Tea, or not?", "Tea."\n"d", "e"\n', "a.txt")) == [["Tea, or not?", "Tea."], ["d", "e"]]


@pytest.mark.parametrize(
    "text",
    [
        "Hello, how are you?\nI am fine, thanks.\nWell, good.\n",
        "One line, that is all\n",
        "hi\thello, you\na, b\tc\n",
        '"quoted"\t""\n"a"\t"b"\nsays "hi\t\'\n',
        '["a", "b"]\n["c", "d"]\n',
        '{"a": 1, "b": 2}\n',
        '[\n  ["a", "b"],\n',
        "\n\n",
        "no delimiter here\nnone\n",
        "Anna: well, yes\nBob: no, never; ever\n",
    ],
)
def test_what_is_no_table_is_left_to_others(tmp_path: Path, text: str) -> None:
    assert dialect(tmp_path, text) is None


def test_tab_separated_text_of_a_spreadsheet(read: Callable[..., Any], tmp_path: Path) -> None:
    assert spoken(read('context\treply\n"two\nlines"\tb\n', "a.tsv")) == [["two\nlines", "b"]]
    assert spoken(read('"Hi, you"\t"say ""x"""\nplain\tword\n', "a.tsv")) == [["Hi, you", 'say "x"'], ["plain", "word"]]
    assert spoken(read('"Hi, you"\tsay "x"\n', "a.tsv")) == [['"Hi, you"', 'say "x"']]
    assert dialect(tmp_path, 'a\t"not closed\nb\tc\n') is None


def test_tab_separated_text_with_other_columns(read: Callable[..., Any]) -> None:
    header = "conversation_id\tspeaker\ttext\n"
    assert shown(read(f"{header}1\tuser\ta\n\n1\tbot\tb\n2\n", "a.tsv")) == [
        "5! This row has 1 column, but the table has 3.",
        "2: u a / a b",
    ]
    assert spoken(read("id\tquestion\tanswer\n7\ta\tb\n")) == [["a", "b"]]
    assert spoken(read("1\tWho?\tMe.\n2\tc\td\n3\te\tf\n")) == [["Who?", "Me."], ["c", "d"], ["e", "f"]]
    assert spoken(read("a\tb\tc\n", columns=("1=reply", "3=context"))) == [["c", "a"]]
    found = tsv.preview_columns([(1, b"context\treply"), (2, b"a\tb")], "a.tsv")
    assert found == (Column("context", "context", ("a",)), Column("reply", "reply", ("b",)))
    assert [one.role for one in tsv.preview_columns([(1, b"a\tb\tc")], "a.tsv")] == ["turn", "turn", "turn"]


def test_a_row_has_the_number_of_the_line_where_it_starts(read: Callable[..., Any]) -> None:
    text = 'question,answer\n\n"two\nlines",b\n"x\r\n\r\ny",z\nc,d\n'
    assert shown(read(text)) == ["3: u two\nlines / a b", "5: u x\n\ny / a z", "8: u c / a d"]


def test_a_quote_that_is_not_closed_costs_its_own_row(read: Callable[..., Any]) -> None:
    for rest in ('next,row\n"x","y"\n', "next,row\nx,y\n", 'next,row\nx,5"\n'):
        found = shown(read(f'Who?,Me.\nWhy?,So.\n"open,hi\n{rest}'))
        assert found[2] == "3! A quote is opened in this row and not closed."
        assert found[3] == "4: u next / a row"
        assert len(found) == 5
    many = "".join(f"q{number},a{number}\n" for number in range(3_000))
    found = shown(read(f'question,answer\n"open,hi\n{many}'))
    assert found[0] == "2! A quote is opened in this row and not closed."
    assert len(found) == 3_001
    found = shown(read(f'question,answer\n{many}"open,hi\n{many}"x","y"\n'))
    assert [line for line in found if "!" in line] == ["3002! A quote is opened in this row and not closed."]
    assert len(found) == 6_002


def test_quotes_inside_cells(read: Callable[..., Any]) -> None:
    assert spoken(read('question,answer\n"Yes" he said,ok\na 5" pipe,"x ""y"""\n')) == [
        ['"Yes" he said', "ok"],
        ['a 5" pipe', 'x "y"'],
    ]
    assert spoken(read('question,answer\n"say \\"hi\\", you","c:\\\\dir"\nplain\\n,x\n')) == [
        ['say "hi", you', "c:\\dir"],
        ["plain\\n", "x"],
    ]


def test_texts_with_commas_that_are_not_quoted(read: Callable[..., Any]) -> None:
    found = read("question,answer\nWell, how are you,Fine\nhi,hello\nalone\nmixed;up\n")
    assert shown(found) == [
        "2! This row has 3 columns, but the table has 2.",
        "3: u hi / a hello",
        "4! This row has 1 column, but the table has 2.",
        "5! This row has 1 column, but the table has 2.",
    ]
    assert found[0].advice == column_plan.WIDER


def test_nasty_tables(read: Callable[..., Any]) -> None:
    assert read("question,answer\n") == []
    wide = ",".join(["x"] * 10_000)
    assert shown(read(f"question,answer\n{wide}\na,b\n")) == [
        "2! This row has 10,000 columns; at most 1,000 are read.",
        "3: u a / a b",
    ]
    assert all(isinstance(item, Problem) for item in read(f"{wide}\n{wide}\n"))
    long = "y" * 300_000  # more than the csv module takes
    assert spoken(read(f'question,answer\n"{long}\n,",b\nc,d\n')) == [[f"{long}\n,", "b"], ["c", "d"]]
    assert shown(read(b"question,answer\na\0,b\nc,\xc3\n\xc3\xa9,d\n\xc3\xa9,f\n")) == [
        "2! The context holds a character that is not text (NUL).",
        "3! This line has bytes that are not UTF-8 text (byte 3).",
        "4: u é / a d",
        "5: u é / a f",
    ]
    slashed = '"' + '\\"' * 500_000 + '"'
    assert spoken(read(f'question,answer\n"a\\"b",c\n{slashed},d\n')) == [['a"b', "c"], ['"' * 500_000, "d"]]
    big = b"question,answer\n" + b"z" * 50_000_000 + b",b\nc,d\n"
    assert shown(read(big)) == ["2! This line is longer than 10 MB.", "3: u c / a d"]


def test_problems_stand_in_the_order_of_the_lines(read: Callable[..., Any]) -> None:
    text = b"question,answer\n\xc3\xa9,b\nc,\xc3\n\xc3\xa9,f\na\nc,\xc3\n\xc3\xa9,f\n"
    assert [item.line for item in read(text)] == [2, 3, 4, 5, 6, 7]


def test_a_look_at_a_delimited_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id;Frage;Antwort\n1;a;b\n2;c;d\n")
    source = open_source(path)
    found = detect_dialect(source)
    assert found == Dialect(";", 3)
    assert [(one.name, one.role, one.sample) for one in delimited.preview_columns(source, found)] == [
        ("id", "ignore", ("1", "2")), ("Frage", "context", ("a", "c")), ("Antwort", "reply", ("b", "d")),
    ]  # fmt: skip


cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=12) | st.lists(
    st.sampled_from([",", ";", "|", '"', '""', "\n", "a", " b", "\\", "'", "é", "x y"]), min_size=1, max_size=8
).map("".join)  # fmt: skip
said = cell.filter(lambda text: text.strip() != "" and " EOS " not in text)


@FIXTURE_REUSED
@given(
    pairs=st.lists(st.tuples(said, said), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;|\x1f"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_csv_writes_is_read_the_same(
    tmp_path: Path, pairs: list[tuple[str, str]], delimiter: str, quoting: Any, end: str
) -> None:
    path = tmp_path / "a.csv"
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(
        [("question", "answer"), *pairs]
    )
    path.write_bytes(written.getvalue().encode())
    source = open_source(path)
    found = Dialect(delimiter, 2)
    assert spoken(delimited.read_conversations(source, found)) == [[one.strip() for one in pair] for pair in pairs]
    assert detect_dialect(source) == found


@FIXTURE_REUSED
@given(content=st.text('",;|\\\n ab\t=', max_size=80) | st.binary(max_size=60))
def test_any_text_is_read_to_its_end(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        source = open_source(path)
        items: list[Located | Problem] = []
        found = detect_dialect(source)
        for one in ([found] if found else []) + [Dialect(",", 2), Dialect(",", 2, backslash=True)]:
            items += delimited.read_conversations(source, one)
    except DataError:
        return
    lines = path.read_bytes().count(b"\n") + path.read_bytes().count(b"\r") + 1
    assert all(item.line is not None and 1 <= item.line <= lines for item in items)


def test_a_table_streams(tmp_path: Path) -> None:
    asked = 0

    def lines() -> Any:
        nonlocal asked
        for asked in itertools.count(1):
            yield asked, b"question,answer"

    rows = delimited.read_rows(lines(), "t", Dialect(",", 2))
    assert next(rows) == (1, ["question", "answer"])
    assert asked <= delimited.BATCH_LINES
