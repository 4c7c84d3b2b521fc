"""Tables: what their columns hold, and workbooks and Parquet files."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.tables import columns, message_rows, parquet, xlsx
from chat_app.data.readers.types import Column, Located
from chat_app.errors import DataError
from tests.data.readers.items import shown, spoken

pytestmark = pytest.mark.dependencies


def guessed(header: str, *rows: str) -> list[str]:
    return list(columns.guess_columns(header.split(","), [row.split(",") for row in rows]).values())


def rows_of(header: str, *rows: str, need_reply: bool = True, **said: Any) -> list[str]:
    numbered = ((number, row.split(",")) for number, row in enumerate(rows, start=2))
    return shown(
        columns.read_conversations(numbered, header.split(","), "t", ReadingOptions(**said), need_reply=need_reply)
    )


# What columns hold


@pytest.mark.parametrize(
    ("header", "roles"),
    [
        ("context,reply", "context reply"),
        ("Answer,QUESTION", "reply context"),
        ("\ufeffprompt , completion", "context reply"),
        ("system_prompt,userMessage,assistant_message", "system context reply"),
        ("output,input,instruction", "reply context context"),
        ("id,question,answer,url,category", "ignore context reply ignore ignore"),
        ("conversation_id,turn_id,role,content", "conversation time speaker text"),
        ("Date,From,Message", "time speaker text"),
        ("thread,author,body,createdAt", "conversation speaker text time"),
        ("turn 1,turn_2,Turn3", "turn turn turn"),
        ("user,bot,user,bot", "turn turn turn turn"),
        ("text,response", "context reply"),
        ("Frage,Antwort", "context reply"),
        ("Question,Réponse", "context reply"),
        ("pregunta,respuesta", "context reply"),
        ("pergunta,resposta", "context reply"),
        ("domanda,risposta", "context reply"),
        ("vraag,antwoord", "context reply"),
        ("вопрос,ответ", "context reply"),
        ("问题,回答", "context reply"),
        ("質問,返答", "context reply"),
        ("Gespräch,Sprecher,Nachricht,Zeit", "conversation speaker text time"),
        ("foo,bar", "ignore ignore"),
    ],
)
def test_names_tell_what_columns_hold(header: str, roles: str) -> None:
    count = header.count(",") + 1
    rows = [",".join(f"some text {number} {place}" for place in range(count)) for number in range(3)]
    found = columns.preview_columns(header.split(","), [row.split(",") for row in rows], ReadingOptions())
    assert [one.role for one in found] == roles.split()


def test_columns_without_a_name_are_told_by_their_cells() -> None:
    assert guessed(",", "hi,Hello!", "a,b") == ["context", "reply"]
    assert guessed(",", "Zoe,Berlin", "Max,Hamburg") == ["ignore", "ignore"]
    assert guessed(",,", "1,Hi!,Hello!", "2,Who?,Me.", "3,c d,d e") == ["ignore", "context", "reply"]
    assert guessed(",,", "Hi!,Hello!,http://a.b/1", "Who?,Me.,https://a.b/2") == ["context", "reply", "ignore"]
    assert guessed(",,", "Hi!,Hello!,Bye!", "Who?,Me.,Oh!") == ["turn", "turn", "turn"]
    labelled = [f"Text {number}?,Other {number}.,{'pos' if number % 2 else 'neg'}" for number in range(20)]
    assert guessed(",,", *labelled) == ["context", "reply", "ignore"]
    assert guessed(",,", "1,user,hi there", "1,bot,hello", "2,user,x", "2,bot,y") == ["conversation", "speaker", "text"]
    assert guessed(",,", "hi,Hello!,train", "a,b.,test", "c,d.,dev") == ["context", "reply", "split"]


def test_what_a_person_says_goes_before_every_guess() -> None:
    assert rows_of("question,answer", "a,b", columns=("answer=context", "question=reply")) == ["2: u b / a a"]
    assert rows_of("foo,bar,baz", "a x,b x,c x", columns=("3=context", " FOO =reply")) == ["2: u c x / a a x"]
    assert rows_of("a,b,c", "x,y,z", columns=("c=turn", "a=turn")) == ["2: u x / a z"]
    with pytest.raises(DataError) as caught:
        rows_of("foo,bar", "a,b", columns=("qux=reply",))
    assert str(caught.value) == 't: This table has no column "qux". Its columns are "foo", "bar".'


def test_a_table_without_conversations_lists_its_columns() -> None:
    with pytest.raises(DataError) as caught:
        rows_of("id,price,url", "1,2,http://a.b", "2,4,http://a.b", "3,9,http://a.b")
    assert str(caught.value) == (
        "t: Nothing in this table is known to be talk. Which column is the question, and which is the answer? Say it "
        'as in --columns "id=context" --columns "url=reply". Its columns are "id", "price", "url".'
    )


def test_a_look_shows_the_first_cells_with_something_in_them() -> None:
    found = columns.preview_columns(
        ["question", "", "n"], [["a", None, 1], ["", "So it is.", 2.0], ["x" * 999]], ReadingOptions()
    )
    assert found == (
        Column("question", "context", ("a", "x" * columns.LONGEST_SAMPLE)),
        Column("2", "reply", ("So it is.",)),
        Column("n", "ignore", ("1", "2")),
    )


def test_pairs_with_more_than_a_context() -> None:
    assert rows_of("instruction,input,output", "Add,1 2,3", "Say hi,,hi") == [
        "2: u Add\n1 2 / a 3",
        "3: u Say hi / a hi",
    ]
    assert rows_of("system,question,answer", "Be kind,a,b", ",c,d") == ["2: s Be kind / u a / a b", "3: u c / a d"]
    assert rows_of("question,answer", "a EOS b,c") == ["2: a a / u b / a c"]
    history = columns.read_conversations([(1, [["a", "b"], "c", "d"])], ["history", "question", "answer"], "t")
    assert shown(history) == ["1: u a / a b / u c / a d"]


def test_what_is_wrong_with_a_row() -> None:
    assert rows_of("question,answer", "a,", ",b", ",", "a,b,", "a,b,c", "a", "a\0,b") == [
        "2! The reply is empty.",
        "3! The context is empty.",
        "5: u a / a b",
        "6! This row has 3 columns, but the table has 2.",
        "7! This row has 1 column, but the table has 2.",
        "8! The context holds a character that is not text (NUL).",
    ]
    assert rows_of("question,answer", "a,", need_reply=False) == ["2: u a"]


def test_cells_become_their_text() -> None:
    cells: list[Any] = [7, 2.0, 0.5, True, datetime(2024, 5, 1), datetime(2024, 5, 1, 9, 30), b"bytes", float("nan")]
    table = ((number, ["q", cell]) for number, cell in enumerate(cells))
    assert shown(columns.read_conversations(table, ["question", "answer"], "t")) == [
        "0: u q / a 7", "1: u q / a 2", "2: u q / a 0.5", "3: u q / a true", "4: u q / a 2024-05-01",
        "5: u q / a 2024-05-01 09:30", "6: u q / a bytes", "7! The reply is empty.",
    ]  # fmt: skip


def test_turns_in_columns() -> None:
    assert rows_of("turn 1,turn 2,turn 3", "a,b,c", "d,e,", "f,,g", "h,,") == [
        "2: a a / u b / a c",
        "3: u d / a e",
        "4! Column 2 is empty.",
        "5! The reply is empty.",
    ]
    assert rows_of("turn 10,turn 2,turn 1", "c,b,a") == ["2: a a / u b / a c"]
    assert rows_of("question 1,answer 1,question 2,answer 2", "a,b,c,d") == ["2: u a / a b / u c / a d"]
    assert rows_of(",,", "Who?,Me.,Oh!", "Why?,So.,Or?,No.") == [
        "2: a Who? / u Me. / a Oh!",
        "3: u Why? / a So. / u Or? / a No.",
    ]


def test_the_part_of_a_data_set() -> None:
    rows = [(1, ["a", "b", part]) for part in ("train", "validation", "DEV", "test", "")]
    items = list(columns.read_conversations(rows, ["question", "answer", "split"], "t"))
    assert [item.part for item in items if isinstance(item, Located)] == ["train", "valid", "valid", "test", "train"]


def test_lists_in_cells() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for cell in (messages, '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]', str(messages),
                 ["a", "b"], '["a", "b"]', "['a', 'b']", "['a'\n 'b']"):  # fmt: skip
        assert shown(columns.read_conversations([(1, ["x", cell])], ["topic", "dialog"], "t")) == ["1: u a / a b"]
    table = [(1, ["s", messages]), (2, ["", "[oops"]), (3, ["", "[" * 100_000 + "]" * 100_000])]
    said = ReadingOptions(columns=("messages=record",))
    assert shown(columns.read_conversations(table, ["system", "messages"], "t", said)) == [
        "1: s s / u a / a b",
        "2! There is no list of messages in this row.",
        "3! There is no list of messages in this row.",
    ]


def test_records_with_fields_are_rows() -> None:
    items = [(1, {"n": "x", "Answer": "b", "Question": "a"}), (4, {"Question": "c", "Answer": None})]
    assert shown(columns.read_records(items, "t")) == ["1: u a / a b", "4! The reply is empty."]


# A message a row


def test_a_message_a_row() -> None:
    header = "conversation_id,speaker,text"
    rows = ("1,user,a", "1,bot,b", "1,user,c", "1,bot,d", "2,Customer,e", "2,Support agent 7,f")
    assert rows_of(header, *rows) == ["2: u a / a b / u c / a d", "6: u e / a f"]
    assert rows_of(header, "1,Anna,a", "1,Bob,b", "1,Cleo,c") == ["2: u a / a b / u c"]
    assert rows_of(header, "1,Anna,a", "1,Bob,b", bot="anna") == ["2: a a / u b"]
    assert rows_of(header, "1,user,a", "1,system,b") == ["2: u a / a b"]
    assert rows_of(header, "1,system,a", "1,user,b", "1,user,c", "1,assistant,d") == ["2: s a / u b\nc / a d"]
    assert rows_of(header, "1,0,a", "1,1,b") == ["2: u a / a b"]
    assert rows_of(header, "1,user,a") == ["2! The assistant says nothing in this conversation."]
    assert rows_of(header, "1,user,a", need_reply=False) == ["2: u a"]
    assert rows_of(header, "1,user,a", "1,bot,", "1,bot,b") == ["2: u a / a b"]
    assert rows_of("dialog id,utterance", "1,a", "1,b", "2,c", "2,d") == ["2: u a / a b", "4: u c / a d"]
    assert rows_of("dialog id,question,answer", "1,a,b", "1,c,d", "2,e,f") == [
        "2: u a / a b / u c / a d",
        "4: u e / a f",
    ]


def test_messages_are_put_in_order() -> None:
    header = "conversation_id,speaker,text,turn_index"
    assert rows_of(header, "1,bot,b,10", "1,user,a,9", "2,user,c,1", "2,bot,d,2") == ["2: u a / a b", "4: u c / a d"]
    dated = "conversation_id,speaker,text,date"
    assert rows_of(dated, "1,bot,b,2024-01-02", "1,user,a,2024-01-01T10:00:00Z") == ["2: u a / a b"]
    assert rows_of(dated, "1,user,a,tomorrow", "1,bot,b,2024-01-01") == ["2: u a / a b"]


def test_rows_of_conversations_that_are_mixed_find_together() -> None:
    header = "conversation_id,speaker,text,turn"
    assert rows_of(header, "1,user,a,1", "2,user,c,1", "1,bot,b,2", "2,bot,d,2") == ["2: u a / a b", "3: u c / a d"]
    again = rows_of(header, "1,user,a,1", "1,bot,b,2", "2,user,c,1", "2,bot,d,2", "1,user,e,1", "1,bot,f,2")
    assert sorted(again) == ["2: u a / a b", "4: u c / a d", "6: u e / a f"]


def test_only_so_many_conversations_are_kept_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_rows, "MAX_OPEN", 2)
    rows = [f"{key},{speaker},{key}{speaker}" for key in "abc" for speaker in ("user", "bot")]
    found = rows_of("conversation_id,speaker,text", *rows, "a,user,x", "a,bot,y")
    assert found == [
        "2: u auser / a abot", "4: u buser / a bbot", "6: u cuser / a cbot", "8: u x / a y",
    ]  # fmt: skip


def test_without_an_id_a_pause_an_empty_row_or_a_new_numbering_ends_a_conversation() -> None:
    assert rows_of("speaker,text", "A,a", "B,b", ",", "A,c", "B,d") == ["2: u a / a b", "5: u c / a d"]
    assert rows_of("speaker,text,turn", "A,a,1", "B,b,2", "A,c,1", "B,d,2") == ["2: u a / a b", "4: u c / a d"]
    dated = ("speaker,text,date", "A,a,2024-01-01 10:00", "B,b,2024-01-01 10:09", "A,c,2024-01-02 10:00",
             "B,d,2024-01-02 10:01")  # fmt: skip
    assert rows_of(*dated) == ["2: u a / a b", "4: u c / a d"]
    assert rows_of(*dated, pause=10_000) == ["2: u a / a b / u c / a d"]


def test_a_conversation_without_end_is_bounded() -> None:
    many = ((number, ["1", "user" if number % 2 else "bot", "x"]) for number in range(1, 10_000))
    items = list(columns.read_conversations(many, ["conversation_id", "speaker", "text"], "t"))
    assert shown(items) == ["1! This conversation has 9,999 messages; at most 4,000 are read."]
    endless = ((number, ["user" if number % 2 else "bot", "x"]) for number in range(1, 5_001))
    assert [len(texts) for texts in spoken(columns.read_conversations(endless, ["speaker", "text"], "t"))] == [
        2000,
        2000,
        1000,
    ]


# Workbooks


def workbook(path: Path, sheets: dict[str, Sequence[Sequence[Any]]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(list(row))
    book.save(path)
    return path


def test_a_workbook(tmp_path: Path) -> None:
    rows = [["Question", "Answer", "Price"], ["a", "b", 1], [None], ["c", 7, None], ["d", "#N/A", 2], ["e"]]
    path = workbook(tmp_path / "a.xlsx", {"Sheet": rows})
    assert shown(xlsx.read_conversations(path, "a.xlsx")) == [
        "2: u a / a b",
        "4: u c / a 7",
        "5! The reply is empty.",
        "6! This row has 1 column, but the table has 3.",
    ]
    assert [(one.name, one.role) for one in xlsx.preview_columns(path, "a.xlsx")] == [
        ("Question", "context"), ("Answer", "reply"), ("Price", "ignore"),
    ]  # fmt: skip


def test_the_sheets_of_a_workbook(tmp_path: Path) -> None:
    sheets = {
        "Notes": [["just this"]],
        "One": [["Who?", "Me."]],
        "Empty": [],
        "Two": [["Frage", "Antwort"], ["a", "b"]],
    }
    path = workbook(tmp_path / "a.xlsx", sheets)
    items = list(xlsx.read_conversations(path, "a.xlsx"))
    assert [(item.file, item.line) for item in items] == [
        ("a.xlsx, sheet One", 1), ("a.xlsx, sheet Two", 2), ("a.xlsx, sheet Notes", None),
    ]  # fmt: skip
    assert [one.role for one in xlsx.preview_columns(path, "a.xlsx")] == ["context", "reply"]
    with pytest.raises(DataError, match="Nothing in this table"):
        list(xlsx.read_conversations(workbook(tmp_path / "b.xlsx", {"Notes": [["just this"]]}), "b.xlsx"))
    assert list(xlsx.read_conversations(workbook(tmp_path / "c.xlsx", {"Empty": []}), "c.xlsx")) == []


def test_a_formula_without_its_result_is_named(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", {"S": [["question", "answer"], ["a", "=B3"], ["b", "c"]]})
    items = list(xlsx.read_conversations(path, "a.xlsx"))
    assert shown(items) == ["2! The cell B2 holds a formula whose result is not stored.", "3: u b / a c"]


def test_what_a_workbook_says_about_its_size_is_not_believed(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", {"S": [["question", "answer"], ["a", "b"]]})
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = parts[sheet].replace(b'ref="A1:B2"', b'ref="A1:XFD1048576"')
    assert b"XFD1048576" in parts[sheet]
    far = b'<row r="900000"><c r="A900000" t="inlineStr"><is><t>c</t></is></c><c r="B900000" t="n"><v>5</v></c></row>'
    beyond = b'<row r="99999999"><c r="A99999999" t="n"><v>1</v></c></row>'
    for more, expected in ((b"", ["2: u a / a b"]), (far + beyond, ["2: u a / a b", "900000: u c / a 5"])):
        with zipfile.ZipFile(tmp_path / "b.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in parts.items():
                archive.writestr(name, content.replace(b"</sheetData>", more + b"</sheetData>"))
        assert shown(xlsx.read_conversations(tmp_path / "b.xlsx", "b.xlsx")) == expected


def test_workbooks_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.xlsx"
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
    good = workbook(tmp_path / "good.xlsx", {"S": [["a", "b"]]}).read_bytes()
    for content, message in (
        (ole, "a.xlsx: This is a workbook or document of an old Office"),
        (ole + "EncryptedPackage".encode("utf-16-le"), "a.xlsx: This workbook is locked with a password."),
        (good[:-200], "a.xlsx: This workbook is damaged or cut off."),
        (good.replace(b"PK\x01\x02", b"PK\x01\x03"), "a.xlsx: This workbook is damaged or cut off."),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            list(xlsx.read_conversations(path, "a.xlsx"))
        assert str(caught.value).startswith(message)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("[Content_Types].xml", "xl/workbook.xml"):
            archive.writestr(name, "<not xml")
    with pytest.raises(DataError, match="damaged"):
        xlsx.preview_columns(path, "a.xlsx")
    path.write_bytes(good)
    monkeypatch.setattr(xlsx, "MAX_BYTES", 1_000)
    with pytest.raises(DataError, match=r"This workbook unpacks to \d+ KB\. Save it as CSV"):
        list(xlsx.read_conversations(path, "a.xlsx"))


# Parquet


def test_a_parquet_table(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    count = 3_000
    table = pyarrow.table(
        {"id": range(count), "prompt": [f"q{n}" for n in range(count)], "response": [f"a{n}" for n in range(count)],
         "split": ["test" if n == 5 else "train" for n in range(count)]}
    )  # fmt: skip
    pyarrow.parquet.write_table(table, path, row_group_size=700)
    items = list(parquet.read_conversations(path, "a.parquet"))
    assert spoken(items) == [[f"q{number}", f"a{number}"] for number in range(count)]
    assert [item.line for item in items] == list(range(1, count + 1))
    assert [item.line for item in items if isinstance(item, Located) and item.part == "test"] == [6]
    assert [one.role for one in parquet.preview_columns(path, "a.parquet")] == ["ignore", "context", "reply", "split"]


def test_lists_in_a_parquet_table(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    pyarrow.parquet.write_table(pyarrow.table({"messages": [messages, [], None], "n": [1, 2, 3]}), path)
    assert shown(parquet.read_conversations(path, "p"))[0] == "1: u a / a b"
    assert [one.role for one in parquet.preview_columns(path, "p")] == ["record", "ignore"]
    pyarrow.parquet.write_table(pyarrow.table({"prompt": pyarrow.array([], "string")}), path)
    assert list(parquet.read_conversations(path, "p")) == []


def test_parquet_tables_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"prompt": ["a"] * 999, "response": ["b"] * 999})
    pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False)
    content = path.read_bytes()
    for broken in (content[:-20], content[:4] + b"\xff" * 2000 + content[2004:], b"PAR1PAR1", b"PAR1"):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="This Parquet table is damaged or cut off"):
            list(parquet.read_conversations(path, "a.parquet"))
    pyarrow.feather.write_feather(table, path)
    assert parquet.is_parquet(path.read_bytes()[:8])
    with pytest.raises(DataError, match=r"This is an Arrow \(Feather\) table\. Save it as Parquet"):
        parquet.preview_columns(path, "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table({f"c{n}": ["x"] for n in range(1_001)}), path)
    with pytest.raises(DataError, match="1,001 columns"):
        list(parquet.read_conversations(path, "a.parquet"))
