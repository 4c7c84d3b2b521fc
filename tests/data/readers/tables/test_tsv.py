"""Tab-separated files: columns, headers, turns inside a context, and every mistake with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from chat_app.conversation import Conversation, Message
from chat_app.data.readers import Problem, Reading, iterate, read_file
from chat_app.data.readers.tables.tsv import MAX_COLUMNS
from chat_app.data.readers.text_source import MAX_LINE_BYTES
from chat_app.data.readers.turn_text import MAX_TURNS
from chat_app.errors import DataError


def read(tmp_path: Path, text: str, name: str = "data.tsv") -> Reading:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return read_file(path)


def turns(reading: Reading) -> list[list[str]]:
    return [conversation.texts for conversation in reading.conversations]


def problems(reading: Reading) -> list[tuple[int | None, str]]:
    return [(problem.line, problem.reason) for problem in reading.problems]


def test_a_context_and_a_reply(tmp_path: Path) -> None:
    reading = read(tmp_path, "How are you?\tFine, thanks.\n")
    assert reading.conversations == [
        Conversation((Message("user", "How are you?"), Message("assistant", "Fine, thanks.")))
    ]
    assert (reading.kind, reading.encoding, reading.lines, reading.turns) == ("tsv", "utf-8", [1], 2)
    assert reading.problems == []
    assert reading.problems_total == 0


@pytest.mark.parametrize(
    ("line", "roles"),
    [
        ("a\tb", "ua"),
        ("a EOS b\tc", "aua"),
        ("a EOS b EOS c\td", "uaua"),
        ("a\tb\tc", "aua"),
        ("a\tb\tc\td", "uaua"),
    ],
)
def test_the_last_turn_is_the_reply(tmp_path: Path, line: str, roles: str) -> None:
    (conversation,) = read(tmp_path, line).conversations
    assert "".join(turn.role[0] for turn in conversation.turns) == roles
    assert conversation.texts == list("abcd"[: len(roles)])


def test_the_separator_needs_its_spaces_and_stands_only_in_a_context_of_two_columns(tmp_path: Path) -> None:
    text = "NEOS b EOSa\tthe EOS one EOS two\na EOS b\tc\td\nhi EOS \tyes\n"
    assert turns(read(tmp_path, text)) == [
        ["NEOS b EOSa", "the EOS one EOS two"],
        ["a EOS b", "c", "d"],
        ["hi", "yes"],
    ]


def test_quotes_are_ordinary_characters(tmp_path: Path) -> None:
    text = '"one unclosed quote\tyes\n"quoted"\t""\nsays "hi\t\'\n'
    assert turns(read(tmp_path, text)) == [['"one unclosed quote', "yes"], ['"quoted"', '""'], ['says "hi', "'"]]


@pytest.mark.parametrize(
    "header",
    [
        "context\treply", "Context\tResponse", "Question\tAnswer", "prompt\tcompletion", "INPUT\tOUTPUT", "user\tbot",
        "source\ttarget", "turn1\tturn2\tturn3", "Turn 1\tturn_2", " user \tassistant", "Questions\tReplies",
    ],
)  # fmt: skip
def test_a_header_is_not_a_conversation(tmp_path: Path, header: str) -> None:
    reading = read(tmp_path, f"{header}\nhi\thello\n")
    assert turns(reading) == [["hi", "hello"]]
    assert (reading.lines, reading.problems) == ([2], [])


@pytest.mark.parametrize(
    "line", ["hi\treply", "question 1\tanswer 1", "context\tthe context", "a\tb", "1\t2", "reply?\tanswer"]
)
def test_a_conversation_is_not_a_header(tmp_path: Path, line: str) -> None:
    assert turns(read(tmp_path, f"{line}\nhi\thello\n"))[0] == line.split("\t")


def test_header_words_later_in_a_file_are_text(tmp_path: Path) -> None:
    assert turns(read(tmp_path, "hi\thello\ncontext\treply\n")) == [["hi", "hello"], ["context", "reply"]]


def test_named_columns_the_other_way_round_are_turned(tmp_path: Path) -> None:
    assert turns(read(tmp_path, "answer\tquestion\nBlue.\tWhich colour?\n")) == [["Which colour?", "Blue."]]


def test_every_mistake_is_reported_with_its_line_and_the_rest_is_used(tmp_path: Path) -> None:
    text = (
        "hi\thello\nonly one column\n\n  \nbye\t \n\tgoodbye\nx\t\ty\na EOS  EOS b\tc\nok\tyes\t\t\n \t \nN\0L\tyes\n"
    )
    reading = read(tmp_path, text)
    assert turns(reading) == [["hi", "hello"], ["ok", "yes"]]
    assert reading.lines == [1, 9]
    assert problems(reading) == [
        (2, "This line has 1 column; at least 2 are needed."),
        (4, "This line has only spaces."),
        (5, "The reply is empty."),
        (6, "The context is empty."),
        (7, "Column 2 is empty."),
        (8, "Turn 2 is empty."),
        (10, "This line has only spaces."),
        (11, "The context holds a character that is not text (NUL)."),
    ]
    assert reading.problems_total == 8
    assert all(problem.advice.endswith(".") and problem.file == "data.tsv" for problem in reading.problems)


def test_a_problem_in_one_sentence() -> None:
    problem = Problem("shop.tsv", 3, "The reply is empty.", "Write it.")
    assert problem.sentence() == "shop.tsv, line 3: The reply is empty. Write it."
    assert Problem("shop.tsv", None, "It is odd.", "").sentence() == "shop.tsv: It is odd."


def test_spaces_around_a_turn_go_and_those_inside_stay(tmp_path: Path) -> None:
    assert turns(read(tmp_path, "  two  words \t\u00a0yes \u2003\n")) == [["two  words", "yes"]]


def test_too_many_columns(tmp_path: Path) -> None:
    most = "\t".join("x" * MAX_COLUMNS)
    reading = read(tmp_path, f"{most}\tx\n{most}\n")
    assert [len(texts) for texts in turns(reading)] == [MAX_COLUMNS]
    assert problems(reading) == [(1, "This line has 1,001 columns; at most 1,000 are read.")]


def test_too_many_turns(tmp_path: Path) -> None:
    context = " EOS ".join("x" * (MAX_TURNS - 1))
    reading = read(tmp_path, f"{context} EOS x\ty\n{context}\ty\n")
    assert [len(texts) for texts in turns(reading)] == [MAX_TURNS]
    assert problems(reading) == [(1, "This conversation has 2,001 turns; at most 2,000 are read.")]


def test_a_line_that_is_too_long_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    with path.open("wb") as file:
        file.write(b"hi\thello\nlong\t" + b"x" * MAX_LINE_BYTES + b"\r\nbye\tgoodbye\r\n")
        file.write(b"y" * (3 * MAX_LINE_BYTES))
    reading = read_file(path)
    assert turns(reading) == [["hi", "hello"], ["bye", "goodbye"]]
    assert reading.lines == [1, 3]
    assert problems(reading) == [(2, "This line is longer than 10 MB."), (4, "This line is longer than 10 MB.")]


def test_a_file_of_which_nothing_can_be_used_tells_the_first_reasons(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, "one\n\ntwo\n\tthree\nfour\nfive\n")
    message = str(caught.value)
    assert message.startswith("data.tsv: Nothing in this file can be used. Line 1: This line has 1 column;")
    assert "Line 4: The context is empty." in message
    assert message.endswith("And 3 more.")


def test_iterate_gives_conversations_and_problems_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "upload-17"
    path.write_text("a\tb\nc\nd\te\n")
    items = list(iterate(path, name="mine.tsv"))
    assert [(type(item).__name__, item.line) for item in items] == [("Located", 1), ("Problem", 2), ("Located", 3)]
    assert isinstance(items[1], Problem)
    assert items[1].file == "mine.tsv"
