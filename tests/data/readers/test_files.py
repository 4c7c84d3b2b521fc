"""Files as they come: encodings, ends of lines, what is no text, kinds, several at once, and any bytes at all."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_app.conversation import Conversation, Message
from chat_app.data.readers import Located, Problem, iterate, read_file, read_files
from chat_app.data.readers.text_source import number_lines
from chat_app.data.writers import write_jsonl
from chat_app.errors import DataError

SAMPLES = Path(__file__).resolve().parents[3] / "sample_data"
FIXTURE_REUSED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def stored(tmp_path: Path, content: bytes, name: str = "data.tsv") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


TEXT = "Où est le café ?\tLà-bas 😀\nשלום\tΓεια σου\n"
TEXTS = [["Où est le café ?", "Là-bas 😀"], ["שלום", "Γεια σου"]]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (TEXT.encode(), "utf-8"),
        (TEXT.encode("utf-8-sig"), "utf-8-sig"),
        (b"\xff\xfe" + TEXT.encode("utf-16-le"), "utf-16-le"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "utf-16-be"),
        (b"\xff\xfe\0\0" + TEXT.encode("utf-32-le"), "utf-32-le"),
    ],
)
def test_unicode(tmp_path: Path, content: bytes, encoding: str) -> None:
    reading = read_file(stored(tmp_path, content))
    assert [conversation.texts for conversation in reading.conversations] == TEXTS
    assert (reading.encoding, reading.problems) == (encoding, [])


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["hello there\thi\nbye\tsee you\n", '["hello there", "hi"]\r\n["bye", "see you"]'])
def test_utf16_without_its_mark(tmp_path: Path, encoding: str, text: str) -> None:
    reading = read_file(stored(tmp_path, text.encode(encoding)))
    assert [found.texts for found in reading.conversations] == [["hello there", "hi"], ["bye", "see you"]]
    assert reading.encoding == encoding


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Où est le café ?\tIl est là-bas, à côté de l’église.\n"),
        ("cp1252", "café\tthé\n"),
        ("cp1252", "Wie heißt du?\tIch heiße Jürgen.\n"),
        ("cp1252", "It’s “fine” – really…\tOkay\n"),
        ("cp1250", "Dobrý den, jak se máte? Příliš žluťoučký kůň\tŘeknu vám to zítra.\n"),
        ("cp1250", "Cześć, jak się masz?\tDziękuję, świetnie, łódź\n"),
        ("cp1251", "Привет, как дела?\tХорошо, спасибо. А у вас?\n"),
        ("koi8-r", "Привет, как дела?\tХорошо, спасибо. А у вас?\n"),
        ("gb18030", "你好，今天天气怎么样？\t今天天气很好，适合出去散步。\n"),
        ("cp932", "こんにちは、元気ですか？\tはい、とても元気です。ありがとう。\n"),
    ],
)
def test_other_encodings_are_recognised(tmp_path: Path, encoding: str, text: str) -> None:
    reading = read_file(stored(tmp_path, b"hi\thello\n" + text.encode(encoding)))
    assert reading.conversations[1].texts == text.strip("\n").split("\t")
    assert (reading.encoding, reading.problems) == (encoding, [])


def test_json_in_another_encoding(tmp_path: Path) -> None:
    reading = read_file(stored(tmp_path, '["naïve café", "voilà"]\n'.encode("cp1252"), "data.jsonl"))
    assert reading.conversations[0].texts == ["naïve café", "voilà"]
    array = '[\n["naïve café", "voilà"]\n]'.encode("utf-16")
    assert read_file(stored(tmp_path, array, "data.json")).conversations[0].texts == ["naïve café", "voilà"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_ends_of_lines(tmp_path: Path, end: str, last: bool) -> None:
    text = end.join(["a\tb", "", "broken", "c\td"]) + (end if last else "")
    reading = read_file(stored(tmp_path, text.encode()))
    assert [found.texts for found in reading.conversations] == [["a", "b"], ["c", "d"]]
    assert (reading.lines, [problem.line for problem in reading.problems]) == ([1, 4], [3])


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_other_separators_do_not_end_a_line(tmp_path: Path, sign: str) -> None:
    text = f"one{sign}two\tthree{sign}four\n"
    assert read_file(stored(tmp_path, text.encode())).conversations[0].texts == [f"one{sign}two", f"three{sign}four"]
    if sign >= "\x7f":
        reading = read_file(stored(tmp_path, f'["one{sign}two", "three"]\n'.encode(), "data.jsonl"))
        assert reading.conversations[0].texts == [f"one{sign}two", "three"]


@given(st.text("ab\r\n\x85\u2028", max_size=40), st.integers(1, 7))
def test_lines_do_not_depend_on_how_a_file_is_cut(text: str, size: int) -> None:
    data = text.encode()
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    assert list(number_lines(chunks)) == list(enumerate(data.splitlines(), start=1))


@given(st.text("ab\r\n", max_size=60), st.integers(1, 7))
def test_long_lines_do_not_depend_on_how_a_file_is_cut(text: str, size: int) -> None:
    data = text.encode()
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chat_app.data.readers.text_source.MAX_LINE_BYTES", 4)
        expected = [
            (number, line if len(line) <= 4 else None) for number, line in enumerate(data.splitlines(), start=1)
        ]
        assert list(number_lines(chunks)) == expected


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "letter.docx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", "<w:document/>")
    stored(tmp_path, pickle.dumps(["a", "b"]), "data.pkl")
    stored(tmp_path, b"BZh91AY&SY", "data.bz2")
    stored(tmp_path, b"%PDF-1.7\n\xe2\xe3", "data.pdf")
    stored(tmp_path, bytes(range(256)) * 40, "data.bin")
    stored(tmp_path, b"{\\rtf1 hello\thi}", "data.rtf")
    expected = {
        "letter.docx": "This document holds no text.",
        "data.pkl": "This is a Python pickle, which is never opened, not text.",
        "data.bz2": "This is a bzip2 file. Unpack it",
        "data.pdf": "This is a PDF, not text.",
        "data.rtf": "This is an RTF document, not text.",
        "data.bin": "This is not a file of text.",
    }
    for name, message in expected.items():
        with pytest.raises(DataError) as caught:
            iterate(tmp_path / name)  # at once, not at the first item
        assert str(caught.value).startswith(f"{name}: {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "data.tsv: The file is empty. "),
        (b"\n\r\n\n", "data.tsv: The file holds no conversation. "),
        (b"\xef\xbb\xbf", "data.tsv: The file holds no conversation. "),
        (b"context\treply\n", "data.tsv: The file holds no conversation. "),
        (b"\x81\x8d\x8f\x90\x9d\xff\x81" * 9, "data.tsv: The encoding of this file is unknown, or it is not text. "),
    ],
)
def test_files_of_no_use(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_file(stored(tmp_path, content))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["absent.tsv", "a\0b", "x" * 5000])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="There is no such file"):
        read_file(tmp_path / name)


@pytest.mark.parametrize("name", ["data.tsv", "data.txt", "data.jsonl", "data.json", "data", "data.csv"])
def test_the_kind_is_told_by_what_stands_in_the_file(tmp_path: Path, name: str) -> None:
    assert read_file(stored(tmp_path, b'\n["a", "b"]\n["c"\n', name)).kind == "jsonl"
    assert read_file(stored(tmp_path, b'a\tb\n["c", "d"]\te\n', name)).kind == "tsv"
    assert read_file(stored(tmp_path, b"[laughs]\tWhy?\n[sighs]\tSo.\n", name)).kind == "tsv"
    assert read_file(stored(tmp_path, b'[\n  ["a", "b"]\n]\n', name)).kind == "json"
    if name != "data.json":
        assert read_file(stored(tmp_path, b"[\nhi\thello\n", name)).kind == "tsv"


def test_where_what_stands_there_does_not_tell_the_name_does(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not JSON"):
        read_file(stored(tmp_path, b"hello\n", "data.jsonl"))
    with pytest.raises(DataError, match="1 column"):
        read_file(stored(tmp_path, b"hello\n", "data.txt"))
    with pytest.raises(DataError, match="not JSON"):
        read_file(stored(tmp_path, b"hello\n", "upload"), name="mine.jsonl")


def test_a_first_line_longer_than_the_sample(tmp_path: Path) -> None:
    text = "x" * 600_000
    assert read_file(stored(tmp_path, f'["{text}", "b"]\n["c", "d"]\n'.encode(), "a.txt")).lines == [1, 2]
    assert read_file(stored(tmp_path, f"{text}\tb\nc\td\n".encode())).lines == [1, 2]
    reading = read_file(stored(tmp_path, f'[["{text}", "b"], ["c", "d"]]'.encode(), "a.json"))
    assert reading.lines == [1, 2]


def test_several_files_as_one(tmp_path: Path) -> None:
    first = stored(tmp_path, b"a\tb\nbroken\n", "one.tsv")
    second = stored(tmp_path, b'["c"]\n["d", "e"]\n', "two.jsonl")
    reading = read_files([first, str(second)])
    assert [found.texts for found in reading.conversations] == [["a", "b"], ["d", "e"]]
    assert (reading.lines, reading.kind, reading.encoding, reading.turns) == ([1, 2], "tsv", "utf-8", 4)
    assert [(problem.file, problem.line) for problem in reading.problems] == [("one.tsv", 2), ("two.jsonl", 1)]
    assert reading.problems_total == 2
    with pytest.raises(DataError, match="No file was given"):
        read_files([])
    with pytest.raises(DataError, match=r"three\.tsv"):
        read_files([first, tmp_path / "three.tsv"])


def test_the_samples() -> None:
    table, lines, mistakes = (
        read_file(SAMPLES / name) for name in ("shop.tsv", "shop.jsonl", "shop_with_mistakes.tsv")
    )
    assert (table.kind, table.problems) == ("tsv", [])
    assert (lines.kind, lines.problems) == ("jsonl", [])
    assert len(table.conversations) > 100
    assert len(lines.conversations) > 100
    assert len(mistakes.problems) == 4
    assert mistakes.conversations


def test_writing_is_canonical_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("before")
    spoken = (Message("system", "s"), Message("user", "é"), Message("assistant", "a\tb", in_loss=False))

    def failing() -> list[Conversation]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_jsonl((found for _ in [0] for found in failing()), path)
    assert path.read_text() == "before"
    write_jsonl([Conversation(spoken), Conversation.from_turns(["x\0", "\ud800y"])], path)
    assert path.read_bytes().decode() == (
        '{"messages":[{"role":"system","content":"s"},{"role":"user","content":"é"},'
        '{"role":"assistant","content":"a\\tb","weight":0}]}\n'
        '{"messages":[{"role":"user","content":"x\ufffd"},{"role":"assistant","content":"\ufffdy"}]}\n'
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.jsonl"]


pieces = st.sampled_from([" EOS ", "\t", "\n", "\r\n", "<|End|>", "<sep>", "😀", "שלום", "\u2028", '"', "\\", "["])
any_text = (
    st.lists(st.one_of(pieces, st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))), min_size=1)
    .map(lambda parts: "".join(parts).strip())
    .filter(bool)
)


@st.composite
def any_conversation(draw: st.DrawFn) -> Conversation:
    messages = [Message("system", draw(any_text))] if draw(st.booleans()) else []
    first = draw(st.integers(0, 1))
    for number in range(first, first + draw(st.integers(2, 6))):
        messages.append(Message("assistant" if number % 2 else "user", draw(any_text), draw(st.booleans())))
    return Conversation(tuple(messages))


@FIXTURE_REUSED
@given(conversations=st.lists(any_conversation(), min_size=1, max_size=4))
def test_what_was_written_is_read_the_same(tmp_path: Path, conversations: list[Conversation]) -> None:
    path = tmp_path / "same.jsonl"
    write_jsonl(conversations, path)
    reading = read_file(path)
    assert reading.conversations == conversations
    assert (reading.kind, reading.problems, reading.lines) == ("jsonl", [], list(range(1, len(conversations) + 1)))


def check_any(path: Path) -> None:
    try:
        items = list(iterate(path))
    except DataError:
        items = []
    assert all(isinstance(item, Located | Problem) for item in items)
    found = [item.conversation for item in items if isinstance(item, Located)]
    if not found:
        with pytest.raises(DataError, match=path.name):
            read_file(path)
        return
    assert read_file(path).conversations == found
    assert all(text.encode() and "\0" not in text for conversation in found for text in conversation.texts)


seeds = st.sampled_from(
    [
        b"a\tb\n", b'["a", "b"]\n', b'{"messages": [', b'{"role": "user", "content": "', b'{"context": ', b"\n[\n",
        b"]", b"}", b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"\r", b"\xe9",
        b'"turns": [', b"null", b"\xed\xa0\x80", b"1e999",
    ]
)  # fmt: skip


@FIXTURE_REUSED
@given(
    content=st.one_of(
        st.binary(max_size=300), st.lists(st.one_of(seeds, st.binary(max_size=6)), max_size=30).map(b"".join)
    ),
    extension=st.sampled_from(["tsv", "jsonl", "json", "txt"]),
)
def test_any_bytes_give_problems_or_a_data_error(tmp_path: Path, content: bytes, extension: str) -> None:
    check_any(stored(tmp_path, content, f"any.{extension}"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["messages", "turns", "conversations", "role", "from", "content", "value", "weight", "type", "text",
             "context", "response", "input", "persona", "system", "instruction", "output"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


nearly_messages = st.fixed_dictionaries(
    {"messages": st.lists(
        st.fixed_dictionaries(
            {
                "role": st.sampled_from(["user", "assistant", "system", "Bot"]) | json_values,
                "content": st.text() | json_values,
            },
            optional={"weight": st.integers(0, 1) | json_values},
        ),
        max_size=4,
    )},
    optional={"persona": json_values},
)  # fmt: skip


@FIXTURE_REUSED
@given(value=json_values | nearly_messages | st.lists(nearly_messages), indent=st.sampled_from([None, 2]))
def test_any_json_gives_problems_or_a_data_error(tmp_path: Path, value: object, indent: int | None) -> None:
    check_any(stored(tmp_path, json.dumps(value, indent=indent).encode("utf-8", "replace"), "any.json"))
