"""Copied or new: the longest run of words that a reply shares with what was learned, and the line it stands on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_app.conversation import Conversation
from chat_app.data.writers import write_jsonl
from chat_app.errors import DataError
from chat_app.evaluation import memorization_index
from chat_app.evaluation.memorization_index import GRAM, Match, MemorizationIndex, classify, words

Make = Callable[[list[list[str]]], MemorizationIndex]


@pytest.fixture
def learned(tmp_path: Path) -> Make:
    def make(conversations: list[list[str]]) -> MemorizationIndex:
        path = tmp_path / "train.jsonl"
        write_jsonl([Conversation.from_turns(turns) for turns in conversations], path)
        return MemorizationIndex.open(path)

    return make


SHOP = [
    ["When do you open?", "We open at nine and close at six, every day but Sunday."],
    ["Do you ship abroad?", "No, we only ship within the country."],
    ["Thanks!", "You are welcome. See you soon, goodbye!"],
]


def test_a_copied_reply_is_found_with_its_line(learned: Make) -> None:
    match = learned(SHOP).find_longest_match("no we ONLY ship within the country")
    assert match == Match(7, "no we ONLY ship within the country", 2, 7)
    assert classify(match) == ("copied", "All 7 words of the reply stand in a row in line 2 of the training data.")


def test_a_part_is_shown_as_it_stands_in_the_reply(learned: Make) -> None:
    match = learned(SHOP).find_longest_match("Hello! WE open, at nine -- and close at ten; come by.")
    assert match == Match(7, "WE open, at nine -- and close at", 1, 11)
    kind, sentence = classify(match)
    assert kind == "partly copied"
    assert sentence.startswith("7 of its 11 words stand in a row in line 1")


def test_a_new_reply_is_new(learned: Make) -> None:
    index = learned(SHOP)
    assert index.find_longest_match("We open at ten and only on days with rain") == Match(0, "", None, 10)
    kind, sentence = classify(
        index.find_longest_match("We are happy that you are welcome. See us, if you have the time today")
    )
    assert (kind, sentence) == (
        "new",
        "At most 4 of its 15 words stand in a row in line 3 of the training data, which happens by chance: "
        "“you are welcome. See”.",
    )


def test_short_and_empty_replies_are_not_called_copied(learned: Make) -> None:
    index = learned(SHOP)
    for reply in ("", "   ", "?!", "You are welcome"):
        assert classify(index.find_longest_match(reply))[0] == "new"


def test_a_run_never_reaches_from_one_turn_into_the_next(learned: Make) -> None:
    index = learned([["one two three four five", "six seven eight nine ten"], ["a b c", "d e f g"]])
    assert index.find_longest_match("one two three four five six seven eight nine ten").words == 5
    assert index.find_longest_match("a b c d e f").words == 0


def test_what_the_user_said_counts_too(learned: Make) -> None:
    assert learned(SHOP).find_longest_match("When do you open?") == Match(4, "When do you open", 1, 4)


def test_apostrophes_and_widths_do_not_matter(learned: Make) -> None:
    index = learned([["hi", "I don’t know what THE straße is"]])
    assert index.find_longest_match("i don't know what the STRASSE is").words == 7


def test_scripts_without_spaces_are_compared_by_character(learned: Make) -> None:
    index = learned([["你好", "我们早上九点开门"]])
    assert index.find_longest_match("我们早上八点开门").words == 4
    assert index.find_longest_match("我们早上九点开门!").share == 1.0


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('\n["a", "b"]\nbroken\n\n["x", "the very words of line five"]\n')
    assert MemorizationIndex.open(path).find_longest_match("the very words of line five").line == 5


def test_the_index_is_kept_and_made_again_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    write_jsonl([Conversation.from_turns(["q", "one two three four"])], path)
    first = MemorizationIndex.open(path)
    made = (first.folder / "grams").stat().st_mtime_ns
    assert (MemorizationIndex.open(path).folder / "grams").stat().st_mtime_ns == made
    write_jsonl([Conversation.from_turns(["q", "five six seven eight nine"])], path)
    again = MemorizationIndex.open(path)
    assert again.find_longest_match("five six seven eight nine").words == 5
    assert again.find_longest_match("one two three four").words == 0
    assert [one.name for one in tmp_path.iterdir() if one.is_dir()] == [again.folder.name]


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no longer there"):
        MemorizationIndex.open(tmp_path / "train.jsonl")


def test_each_reply_is_classified_with_the_line_it_is_from(learned: Make) -> None:
    index = learned(SHOP)
    matches = map(index.find_longest_match, ("We open at nine and close at six, every day but Sunday.", "Me."))
    assert [(classify(match)[0], match.line) for match in matches] == [("copied", 1), ("new", None)]


def brute_force(conversations: list[list[str]], reply: str) -> tuple[int, int | None]:
    """The longest common run and the first line that has it, by looking at every place."""
    said = words(reply)
    for length in range(len(said), GRAM - 1, -1):
        for start in range(len(said) - length + 1):
            run = said[start : start + length]
            for line, turns in enumerate(conversations, start=1):
                for turn in map(words, turns):
                    if any(turn[at : at + length] == run for at in range(len(turn) - length + 1)):
                        return length, line
    return 0, None


TEXT = st.lists(st.sampled_from(["a", "b", "C", "don't"]), min_size=1, max_size=14).map(", ".join)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conversations=st.lists(st.lists(TEXT, min_size=1, max_size=4), min_size=1, max_size=5), reply=TEXT)
@pytest.mark.parametrize("chunk", [7, memorization_index.CHUNK_WORDS])
def test_it_finds_what_looking_at_every_place_finds(
    tmp_path: Path, monkeypatch: Any, chunk: int, conversations: list[list[str]], reply: str
) -> None:
    monkeypatch.setattr(memorization_index, "CHUNK_WORDS", chunk)
    path = tmp_path / "train.jsonl"
    write_jsonl([Conversation.from_turns(turns) for turns in conversations], path)
    match = MemorizationIndex.open(path).find_longest_match(reply)
    assert (match.words, match.line) == brute_force(conversations, reply)
    assert match.words == 0 or len(words(match.text)) == match.words
