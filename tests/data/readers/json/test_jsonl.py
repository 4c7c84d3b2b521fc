"""JSON Lines and JSON arrays: every shape of a conversation, every mistake with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chat_app.conversation import Conversation, Message
from chat_app.data.readers import Problem, Reading, iterate, read_file
from chat_app.data.readers.json.records import parse_conversation
from chat_app.data.readers.turn_text import MAX_TURNS
from chat_app.data.readers.types import Located, RejectedError
from chat_app.errors import DataError

GOOD = '["hi", "hello"]'


def read(tmp_path: Path, text: str, name: str = "data.jsonl") -> Reading:
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return read_file(path)


def short(found: Conversation) -> list[str]:
    """The messages as "u:text"; a * after those that are not learned."""
    return [f"{message.role[0]}{'' if message.in_loss else '*'}:{message.text}" for message in found.messages]


def roles(*names: str) -> list[dict[str, str]]:
    return [{"role": name, "content": str(number)} for number, name in enumerate(names, start=1)]


SHAPES: list[tuple[Any, list[str]]] = [
    (["hi", "hello"], ["u:hi", "a:hello"]),
    ([" hi ", "hello\n", "and?"], ["u:hi", "a:hello", "u:and?"]),
    ({"conversation": ["hi", "hello"]}, ["u:hi", "a:hello"]),
    ({"turns": ["hi", "hello", "and?"]}, ["u:hi", "a:hello", "u:and?"]),
    ({"dialog": ["hi", "hello"], "act": [0, 1]}, ["u:hi", "a:hello"]),
    ({"dialog": roles("user", "assistant")}, ["u:1", "a:2"]),
    (["the EOS stays", "here EOS too"], ["u:the EOS stays", "a:here EOS too"]),
    ({"messages": roles("system", "user", "assistant")}, ["s:1", "u:2", "a:3"]),
    ({"messages": roles("developer", "human", "gpt")}, ["s:1", "u:2", "a:3"]),
    ({"messages": roles("user", "bot", "user", "model")}, ["u:1", "a:2", "u:3", "a:4"]),
    ({"messages": roles("User", " Assistant ")}, ["u:1", "a:2"]),
    ({"messages": roles("user", "user", "assistant", "assistant")}, ["u:1\n2", "a:3\n4"]),
    ({"messages": roles("assistant", "user")}, ["a:1", "u:2"]),
    (
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]},
        ["u:a", "a*:b"],
    ),
    (
        {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b", "weight": 1, "name": "x"},
            ]
        },
        ["u:a", "a:b"],
    ),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": "c", "weight": None},
            ]
        },
        ["u:a\nb", "a:c"],
    ),
    ({"messages": [{"role": "system", "content": " "}, *roles("user", "assistant")]}, ["u:1", "a:2"]),
    (
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        ["u:a", "a:b"],
    ),
    (
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "user", "value": "a"},
                {"from": "assistant", "value": "b"},
            ]
        },
        ["s:s", "u:a", "a:b"],
    ),
    (roles("user", "assistant"), ["u:1", "a:2"]),
    ({"context": "hi", "response": "hello"}, ["u:hi", "a:hello"]),
    ({"prompt": "hi", "completion": " hello"}, ["u:hi", "a:hello"]),
    ({"context": ["a", "b"], "reply": "c"}, ["a:a", "u:b", "a:c"]),
    ({"context": "a EOS b EOS c", "response": "d EOS e"}, ["u:a", "a:b", "u:c", "a:d EOS e"]),
    ({"instruction": "Add.", "input": "1 and 2", "output": "3"}, ["u:Add.\n1 and 2", "a:3"]),
    ({"instruction": "Add.", "input": "", "output": "3"}, ["u:Add.", "a:3"]),
    ({"instruction": "Add.", "input": None, "output": "3"}, ["u:Add.", "a:3"]),
    ({"input": "a", "output": "b"}, ["u:a", "a:b"]),
    ({"question": "a", "answer": "b"}, ["u:a", "a:b"]),
    ({"prompt": "a", "response": "b", "system": "s"}, ["s:s", "u:a", "a:b"]),
    ({"turns": ["a", "b"], "persona": ["I like tea.", "I am old."]}, ["s:I like tea.\nI am old.", "u:a", "a:b"]),
    ({"turns": ["a", "b"], "persona": [], "system": None}, ["u:a", "a:b"]),
    ({"messages": roles("system", "user", "assistant"), "persona": "p"}, ["s:p\n1", "u:2", "a:3"]),
    (
        ["\U0001f600 \u05e9\u05dc\u05d5\u05dd", "line\none\ttab \u2028"],
        ["u:\U0001f600 \u05e9\u05dc\u05d5\u05dd", "a:line\none\ttab"],
    ),
]


@pytest.mark.parametrize(("record", "expected"), SHAPES)
def test_every_shape(tmp_path: Path, record: Any, expected: list[str]) -> None:
    reading = read(tmp_path, json.dumps(record) + "\n")
    assert [short(found) for found in reading.conversations] == [expected]
    assert (reading.kind, reading.lines, reading.problems) == ("jsonl", [1], [])


MISTAKES: list[tuple[str, str]] = [
    ("{}", "No field here is known to hold a conversation (found: nothing)."),
    ('{"text": "a", "id": 3}', 'No field here is known to hold a conversation (found: "text", "id").'),
    ("[]", "The conversation has no turns."),
    ('["hi"]', "The conversation has 1 turn; it needs at least two turns."),
    ('["hi", 3]', "Turn 2 is a number, not text."),
    ('["hi", null]', "Turn 2 is nothing (null), not text."),
    ('["hi", true]', "Turn 2 is true or false, not text."),
    ('["hi", ["x"]]', "Turn 2 is a list, not text."),
    ('["hi", {"role": "user"}]', "Turn 2 is an object in braces, not text."),
    ('["hi", "  "]', "Turn 2 is empty."),
    ('["hi", "a\\u0000b"]', "Turn 2 holds a character that is not text (NUL)."),
    ('{"turns": "hi"}', '"turns" is a text, not a list of turns.'),
    ('{"turns": ["hi"]}', "The conversation has 1 turn; it needs at least two turns."),
    ('{"messages": []}', "The conversation has no turns."),
    (json.dumps({"messages": roles("user", "tool")}), 'Message 2 has the unknown role "tool".'),
    (json.dumps({"messages": roles("user", "x" * 99)}), f'Message 2 has the unknown role "{"x" * 40}…".'),
    (
        json.dumps({"messages": roles("user", "user")}),
        "No message is the assistant's: there is nothing to learn in it.",
    ),
    (json.dumps({"messages": roles("system")}), "No message is the assistant's: there is nothing to learn in it."),
    ('{"messages": [{"role": "user", "content": "a"}, "b"]}', "Message 2 is a text, but the first one has a role."),
    ('{"messages": [{"role": "user", "content": ""}]}', "Message 1 is empty."),
    ('{"messages": [{"role": "user", "content": null}]}', "Message 1 is nothing (null), not text."),
    ('{"messages": [{"role": "user"}]}', "Message 1 has no text."),
    ('{"messages": [{"content": "a"}]}', "Message 1 does not say whose it is."),
    ('{"messages": [{"role": 3, "content": "a"}]}', "The role of message 1 is a number."),
    (
        '{"messages": [{"role": "user", "content": "a", "weight": 0.5}]}',
        "Message 1 has a weight that is neither 0 nor 1.",
    ),
    (
        '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
        "Message 1 has a part that is not text.",
    ),
    ('{"messages": [{"role": "user", "content": [{"type": "text"}]}]}', "Message 1 is nothing (null), not text."),
    ('{"context": "hi"}', "The reply is missing."),
    ('{"context": "hi", "response": null}', "The reply is missing."),
    ('{"response": "hi"}', "The context is missing."),
    ('{"context": "hi", "response": ""}', "The reply is empty."),
    ('{"context": "", "response": "hi"}', "The context is empty."),
    ('{"context": [], "response": "hi"}', "The context is empty."),
    ('{"context": ["a", 1], "response": "hi"}', "Turn 2 is a number, not text."),
    ('{"context": {"a": 1}, "response": "hi"}', "The context is an object in braces, not text."),
    ('{"context": "a", "response": ["hi"]}', "The reply is a list, not text."),
    ('{"prompt": "a", "input": 3, "response": "hi"}', "The input is a number, not text."),
    ('{"turns": ["a", "b"], "persona": 3}', "The persona text is a number, not text."),
    ('{"turns": ["a", "b"], "persona": ["x", null]}', "The persona text is nothing (null), not text."),
    (json.dumps(["x"] * (MAX_TURNS + 1)), "This conversation has 2,001 turns; at most 2,000 are read."),
    ('["hi", "there"', "This line ends too early: something that was opened is not closed."),
    ('["hi", "there",]', "This line has a comma too many, at character 15."),
    ("['hi', 'there']", "This line has single quotes, at character 2."),
    ('{"a": NaN}', "This line has a number that JSON does not have, at character 7."),
    ('{"a": -Infinity}', "This line has a number that JSON does not have, at character 8."),
    ('["hi", "\\ud800"]', "This line has half of a character (a lone \\ud800-\\udfff), at character 9."),
    ('["hi", "a\tb"]', "This line has a tab or another control character in a text, at character 10."),
    ('["hi", "there"] ["a"]', "This line goes on after its end, at character 17."),
    ('["hi" "there"]', "This line has no comma where one must be, at character 7."),
    ("hi there", "This line is not JSON: it does not begin with { or [."),
    ("3", "Here is a number instead of a conversation."),
    ("[" * 5000, "This line has too many brackets inside each other."),
]


@pytest.mark.parametrize(("line", "reason"), MISTAKES)
def test_every_mistake(tmp_path: Path, line: str, reason: str) -> None:
    reading = read(tmp_path, f"{GOOD}\n{GOOD}\n\n{line}\n{GOOD}\n")
    assert [(problem.file, problem.line, problem.reason) for problem in reading.problems] == [("data.jsonl", 4, reason)]
    assert reading.problems[0].advice.endswith(".")
    assert reading.lines == [1, 2, 5]


def test_the_longest_conversation_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, json.dumps(["x"] * MAX_TURNS)).turns == MAX_TURNS


def test_of_a_key_that_comes_twice_the_last_counts(tmp_path: Path) -> None:
    reading = read(tmp_path, '{"context": "a", "response": "b", "context": "c"}\n')
    assert reading.conversations[0].texts == ["c", "b"]


def test_bytes_that_are_not_utf8_cost_their_line_only(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes('["é", "è"]\n["ü", "ö"]\n'.encode() + b'["caf\xe9", "oui"]\n')
    reading = read_file(path)
    assert (reading.encoding, reading.lines) == ("utf-8", [1, 2])
    assert [(problem.line, problem.reason) for problem in reading.problems] == [
        (3, "This line has bytes that are not UTF-8 text (byte 6).")
    ]


def test_an_array_over_several_lines(tmp_path: Path) -> None:
    records = [{"messages": roles("user", "assistant")}, ["hi", "hello"], ["alone"], {"context": "a", "reply": "b"}, 7]
    for indent in (None, 0, 2):
        text = json.dumps(records, indent=indent)
        reading = read(tmp_path, text, "data.json")
        assert [found.texts for found in reading.conversations] == [["1", "2"], ["hi", "hello"], ["a", "b"]]
        assert reading.kind == ("jsonl" if indent is None else "json")
        assert [problem.reason for problem in reading.problems] == [
            "In item 3: The conversation has 1 turn; it needs at least two turns.",
            "In item 5: Here is a number instead of a conversation.",
        ]
    assert reading.lines == [1, 2, 4]
    assert [problem.line for problem in reading.problems] == [3, 5]


def test_one_conversation_over_several_lines(tmp_path: Path) -> None:
    for record in ({"messages": roles("user", "assistant")}, ["1", "2"], roles("user", "assistant")):
        reading = read(tmp_path, json.dumps(record, indent=2), "data.json")
        assert [found.texts for found in reading.conversations] == [["1", "2"]]


def test_a_broken_array_tells_the_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.json, line 2: This file has a comma too many, at character 11"):
        read(tmp_path, '[\n["a", "b"],\n]\n', "data.json")


def test_an_array_that_is_too_large_to_be_parsed_at_once_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat_app.data.readers.json.document.MAX_WHOLE_BYTES", 0)
    reading = read(tmp_path, '[\n["a", "b"],\n["alone"],\n["c", "d"]\n]\n', "data.json")
    assert [found.texts for found in reading.conversations] == [["a", "b"], ["c", "d"]]
    assert (reading.lines, [problem.line for problem in reading.problems]) == ([1, 3], [2])


def test_lines_in_a_json_file(tmp_path: Path) -> None:
    assert read(tmp_path, f"{GOOD}\n{GOOD}\n", "data.json").lines == [1, 2]
    assert read(tmp_path, f'["a",\n{GOOD}\n{GOOD}\n', "data.json").lines == [2, 3]


def test_prompts_without_a_reply_are_taken_where_they_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = ['["hi"]', '{"messages": [{"role": "user", "content": "a"}]}', '{"context": "a EOS b"}', '{"messages": []}']
    path.write_text("\n".join([*lines, '{"messages": [{"role": "system", "content": "s"}]}']))
    reading = read_file(path, need_reply=False)
    assert [short(found) for found in reading.conversations] == [["u:hi"], ["u:a"], ["a:a", "u:b"]]
    assert [problem.line for problem in reading.problems] == [4, 5]
    items = list(iterate(path))
    assert not any(isinstance(item, Located) for item in items)
    assert len(items) == 5


def test_one_value_is_one_conversation() -> None:
    assert parse_conversation(["a", "b"]) == Conversation((Message("user", "a"), Message("assistant", "b")))
    with pytest.raises(RejectedError):
        parse_conversation("text")


def test_nothing_usable_names_the_items(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Line 1: In item 1: .*Line 2: In item 2: "):
        read(tmp_path, '[\n["a"],\n["b"]\n]\n', "data.json")


def test_problems_are_counted_beyond_those_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat_app.data.readers.reading.MAX_PROBLEMS", 2)
    reading = read(tmp_path, GOOD + "\n[]" * 5)
    assert (len(reading.problems), reading.problems_total) == (2, 5)
    assert all(isinstance(problem, Problem) for problem in reading.problems)
