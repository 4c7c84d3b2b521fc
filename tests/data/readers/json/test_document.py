"""Files that are one JSON value: every shape of a whole data set, its parts, what is broken, and what is too large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chat_app.data.readers.json import document, streaming
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.types import Located
from chat_app.errors import DataError
from tests.data.readers.json.test_records import TOLD, role, short, stored

OPTIONS = ReadingOptions()

RECORDS = [{"prompt": "Hi", "completion": "Hello"}, {"prompt": "Bye", "completion": "See you"}]
BOTH = [(1, TOLD[:2]), (2, TOLD[2:])]

WHOLE: list[tuple[Any, list[Any]]] = [
    (RECORDS, BOTH),
    ({"data": RECORDS}, BOTH),
    ({"version": "1.0", "data": RECORDS}, BOTH),
    ({"rows": [{"row_idx": 0, "row": record, "truncated_cells": []} for record in RECORDS], "features": []}, BOTH),
    ({"conversations": [["Hi", "Hello"], ["Bye", "See you"]]}, BOTH),
    ({"conversations": [{"messages": [role("user", "Hi"), role("assistant", "Hello")]}]}, BOTH[:1]),
    ({"conversations": [role("human", "Hi", "from", "value"), role("gpt", "Hello", "from", "value")]}, BOTH[:1]),
    ({"prompt": {"0": "Hi", "1": "Bye"}, "completion": {"0": "Hello", "1": "See you"}}, BOTH),
    ({"0": RECORDS[0], "1": RECORDS[1]}, BOTH),
    ({"columns": ["prompt", "completion"], "index": [0, 1], "data": [["Hi", "Hello"], ["Bye", "See you"]]}, BOTH),
    ({"schema": {"fields": []}, "data": [{"index": 0, **RECORDS[0]}, {"index": 1, **RECORDS[1]}]}, BOTH),
    ({"id": "1", "data": ["Hi", "Hello"]}, BOTH[:1]),
    ({"first": ["Hi, you!", "Hello!"], "2": ["Bye!", "See you."]},
     [(1, ["u:Hi, you!", "a:Hello!"]), (2, ["u:Bye!", "a:See you."])]),
    ({"hues": ["red", "green"], "sizes": ["S", "M"]},
     [(1, 'No field here is known to hold a conversation (found: "hues", "sizes").')]),
    ([["Hi", "Hello"], 7], [BOTH[0], (2, "In item 2: Here is a number instead of a conversation.")]),
    ([role("user", "Hi"), role("assistant", "Hello")], BOTH[:1]),
    (3, [(1, "Here is a number instead of a conversation.")]),
    ([], [(1, "The conversation has no turns.")]),
    ({}, [(1, "No field here is known to hold a conversation (found: nothing).")]),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), WHOLE)
def test_every_whole_file(value: Any, expected: list[Any]) -> None:
    assert short(document.read_value(value, "a.json", OPTIONS)) == expected


PARTS = {"train": RECORDS, "validation": RECORDS[:1], "test": RECORDS[1:]}


@pytest.mark.parametrize("value", [PARTS, {"version": 1, "data": PARTS}])
@pytest.mark.parametrize("limit", [10**9, 0], ids=["at once", "streamed"])
def test_official_parts_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, limit: int) -> None:
    monkeypatch.setattr(document, "MAX_WHOLE_BYTES", limit)
    found = [
        item for item in document.read_conversations(stored(tmp_path, json.dumps(value))) if isinstance(item, Located)
    ]
    assert [(item.part, item.line, item.file) for item in found] == [
        ("train", 1, "data.json"), ("train", 2, "data.json"), ("valid", 1, "data.json"), ("test", 1, "data.json"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        RECORDS,
        *[{name: RECORDS} for name in streaming.CONTAINERS],
        {"version": {"a": [1, {"b": None}]}, "data": RECORDS},
        {"rows": [{"row_idx": 0, "row": record} for record in RECORDS]},
        {"columns": ["prompt", "completion"], "data": [["Hi", "Hello"], ["Bye", "See you"]]},
    ],
)
def test_what_is_streamed_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    monkeypatch.setattr(document, "MAX_WHOLE_BYTES", 0)
    assert short(document.read_conversations(stored(tmp_path, json.dumps(value, indent=1)))) == BOTH


BROKEN: list[tuple[bytes, str, str]] = [
    (b'[\n["a", "b"],\n["c"', r"line 3: This file ends too early", "ends too early"),
    (b'[\n["a", "b"],\n]', r"line 2: This file has a comma too many, at character 11", "not JSON"),
    (b'[["a", NaN]]', r"line 1: This file has a number that JSON does not have, at character 8", "not JSON"),
    (b'[["a", "b"]] []', r"line 1: This file goes on after its end", "not JSON"),
    (b"[" * 5000, r"too many brackets inside each other", "too many brackets|ends too early"),
]


@pytest.mark.parametrize(("content", "at_once", "streamed"), BROKEN)
def test_broken_files_say_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, at_once: str, streamed: str
) -> None:
    source = stored(tmp_path, content)
    with pytest.raises(DataError, match=at_once):
        list(document.read_conversations(source))
    monkeypatch.setattr(document, "MAX_WHOLE_BYTES", 0)
    with pytest.raises(DataError, match=streamed):
        list(document.read_conversations(source))


def test_one_item_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_WHOLE_BYTES", 0)
    monkeypatch.setattr(streaming, "MAX_ITEM_EVENTS", 50)
    with pytest.raises(DataError, match=r"data\.json, item 2: This file has too much in one item"):
        list(document.read_conversations(stored(tmp_path, json.dumps([["a", "b"], ["x"] * 60]))))
    with pytest.raises(DataError, match="No list of conversations"):
        list(document.read_conversations(stored(tmp_path, '{"a": 1}')))
    with pytest.raises(DataError, match="at most 0 KB are read at once"):
        document.parse(stored(tmp_path, "[]"))
