"""The capacity table, from lines as the benchmark prints them."""

from __future__ import annotations

import pytest

from benchmarks.capacity import people, speeds, table
from benchmarks.engine import TOGETHER

PRINTED = """exact mode is float32; 2 threads; medians of 9 rounds

| | ours | peer | ratio | goal |
|---|---|---|---|---|
| one chat, fast, beside CTranslate2 int8 | 90 tokens/s | 70 tokens/s | 1.29 | >= 1.2 |
| 8 chats, fast, beside CTranslate2 int8 | 320 tokens/s | 200 tokens/s | 1.60 | >= 1.1 |
| 8 chats, exact, beside CTranslate2 int8 | 1.2e+02 tokens/s | 200 tokens/s | 0.60 |  |
"""


def test_the_table_is_computed_from_what_was_measured() -> None:
    found = speeds(PRINTED)
    assert found == {"fast": 320, "exact": 120}
    assert people(320, reply=64, pause=30, busy=0.7) == pytest.approx(105)
    assert table(found, 64, 30, 0.7, 2)[2:] == [
        "| fast | 640 | 40.0 | 5.7 | 420 | 210 |",
        "| exact | 240 | 15.0 | 2.1 | 158 | 79 |",
    ]
    assert TOGETHER == 8


def test_an_output_without_the_rows_gives_nothing() -> None:
    assert speeds("| one chat | 5 tokens/s |") == {}
