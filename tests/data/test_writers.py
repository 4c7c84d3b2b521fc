"""Tables of conversations for spreadsheets: what is written comes back, what cannot is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_app.conversation import Conversation, Message
from chat_app.data.readers.detect_csv import detect_dialect
from chat_app.data.readers.tables import tsv
from chat_app.data.readers.text_source import open_source
from chat_app.data.readers.types import Located
from chat_app.data.writers import write_tsv

FIXTURE_REUSED = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def back(path: Path) -> list[Conversation]:
    source = open_source(path)
    assert detect_dialect(source) is None
    items = list(tsv.read_conversations(source.read_lines(), source.name))
    return [item.conversation for item in items if isinstance(item, Located)]


def pair(*turns: str) -> Conversation:
    return Conversation.from_turns(turns, last="assistant")


def test_a_context_and_a_reply_a_line(tmp_path: Path) -> None:
    path = tmp_path / "out.tsv"
    conversations = [pair("Hi", "Hello"), pair("a", "b", "c"), pair("question", "answer")]
    assert write_tsv(conversations, path) == 0
    assert path.read_text() == "context\treply\nHi\tHello\na EOS b\tc\nquestion\tanswer\n"
    assert back(path) == conversations


def test_formulas_are_defused_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "out.tsv"
    conversations = [pair("=1+1", "-2"), pair("@SUM(A1)", "'+49 30"), pair("''=x", "'quoted'"), pair('"hi', "\x01=x")]
    assert write_tsv(conversations, path) == 0
    assert path.read_text() == ("context\treply\n'=1+1\t'-2\n'@SUM(A1)\t''+49 30\n'''=x\t'quoted'\n \"hi\t'\x01=x\n")
    assert back(path) == conversations


def test_an_apostrophe_in_a_table_without_a_header_is_text(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("'-- what?\t'=1\n")
    assert back(path) == [pair("'-- what?", "'=1")]


@pytest.mark.parametrize(
    ("conversation", "line"),
    [
        (pair("a\tb", "c\r\nd"), "a b\tc d\n"),
        (Conversation.from_turns(["a", "b"], system="s"), "a\tb\n"),
        (Conversation.from_turns(["a", "b", "c"]), "a\tb\n"),
        (Conversation((Message("user", "a"), Message("assistant", "b", in_loss=False))), "a\tb\n"),
        (Conversation.from_turns(["a"]), ""),
        (Conversation((Message("assistant", "a"),)), ""),
        (pair("one EOS two", "c"), "one eos two\tc\n"),
        (pair("x\0", "y"), "x\ufffd\ty\n"),
    ],
)
def test_what_does_not_come_back_the_same_is_counted(tmp_path: Path, conversation: Conversation, line: str) -> None:
    path = tmp_path / "out.tsv"
    assert write_tsv([conversation, pair("fine", "yes")], path) == 1
    assert path.read_text() == f"context\treply\n{line}fine\tyes\n"


def test_the_separator_inside_a_text_asks_for_columns(tmp_path: Path) -> None:
    path = tmp_path / "out.tsv"
    conversations = [pair("one EOS two", "b", "c"), pair("ends with EOS", "b", "c")]
    assert write_tsv(conversations, path) == 0
    assert path.read_text() == "context\treply\none EOS two\tb\tc\nends with EOS\tb\tc\n"
    assert back(path) == conversations


def test_lines_of_many_widths_below_the_header_are_read(tmp_path: Path) -> None:
    path = tmp_path / "out.tsv"
    wide = [pair("a", "one EOS two", "b", "c") for _ in range(3)]
    conversations = [pair("a", "b"), *wide, pair("a", "one EOS two", "b")]
    assert write_tsv(conversations, path) == 0
    assert back(path) == conversations


def test_the_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.tsv"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError):
        write_tsv((pair("a", str(1 // number)) for number in (1, 0)), path)
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.tsv"]


spoken = st.lists(
    st.sampled_from([" EOS ", "EOS", "=", "+", "-", "@", "'", '"', '""', ",", " ", "a", "é", "\x01", "\u2028", "hi "]),
    min_size=1,
    max_size=6,
).map(lambda parts: "".join(parts).strip()).filter(bool)  # fmt: skip


@FIXTURE_REUSED
@given(turns=st.lists(st.lists(spoken, min_size=2, max_size=5), min_size=1, max_size=4))
def test_what_was_written_is_read_the_same_unless_it_was_counted(tmp_path: Path, turns: list[list[str]]) -> None:
    path = tmp_path / "same.tsv"
    conversations = [pair(*texts) for texts in turns]
    lossy = write_tsv(conversations, path)
    found = back(path)
    assert len(found) == len(conversations)
    assert sum(one != other for one, other in zip(found, conversations, strict=True)) == lossy
