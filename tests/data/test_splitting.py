"""The split into training and validation: the same every time, and nothing in both."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from chat_app.conversation import Conversation
from chat_app.data.readers import Reading, has_text, read_file
from chat_app.data.splitting import find_validation_limit, hash_conversation, write_split
from tests.conftest import reading_of


def split(
    conversations: list[Conversation], valid_share: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """(training, validation), as `write_split` writes them."""
    reading = Reading(conversations, [], list(range(1, len(conversations) + 1)), "jsonl", "utf-8")
    with tempfile.TemporaryDirectory() as folder:
        write_split(Path(folder), valid_share, seed, reading, None)
        files = [Path(folder, name) for name in ("train.jsonl", "valid.jsonl")]
        train, valid = (read_file(file).conversations if has_text(file) else [] for file in files)
    return train, valid


def conversations(count: int) -> list[Conversation]:
    return [Conversation.from_turns([f"question {index}", f"answer {index}"]) for index in range(count)]


def test_the_split_is_the_same_every_time_and_shares_nothing() -> None:
    given = conversations(100)
    train, valid = split(given, 0.1, seed=0)
    assert (len(train), len(valid)) == (90, 10)
    again = split(list(reversed(given)), 0.1, seed=0)
    assert set(again[1]) == set(valid)
    assert split(given, 0.1, seed=1)[1] != valid
    doubled = split(given + given, 0.1, seed=0)
    assert set(doubled[1]) == set(valid)
    assert not set(doubled[0]) & set(doubled[1])


def test_few_conversations_are_all_learned() -> None:
    assert split(conversations(4), 0.1, seed=0) == (conversations(4), [])
    assert len(split(conversations(5), 0.1, seed=0)[1]) == 1
    assert split(conversations(50), 0.0, seed=0)[1] == []


def test_the_lowest_hashes_are_kept_aside_and_the_order_stays(tmp_path: Path) -> None:
    reading = reading_of(40)
    hashes = [hash_conversation(conversation, 3) for conversation in reading.conversations]
    highest = sorted(hashes)[7]
    train, valid = (
        [one for one, own in zip(reading.conversations, hashes, strict=True) if (own <= highest) == is_valid]
        for is_valid in (False, True)
    )
    write_split(tmp_path, 0.2, 3, reading, None)
    assert read_file(tmp_path / "train.jsonl").conversations == train
    assert read_file(tmp_path / "valid.jsonl").conversations == valid
    assert len(valid) == 8
    first = json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])
    assert first["line"] == reading.lines[reading.conversations.index(train[0])]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_given_validation_takes_nothing_from_what_is_learned(tmp_path: Path) -> None:
    counts = write_split(tmp_path, 0.2, 0, reading_of(40), reading_of(7))
    assert dict(counts) == {"train": 40, "valid": 7}


@settings(deadline=None)  # It writes files, which takes as long as the disk takes.
@for_all(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30), st.floats(0.01, 0.5), st.integers(0, 3))
def test_copies_go_the_same_way_and_place_does_not_matter(texts: list[str], share: float, seed: int) -> None:
    given = [Conversation.from_turns([text, "yes"]) for text in texts]
    train, valid = split(given, share, seed)
    assert {one.texts[0] for one in train}.isdisjoint({one.texts[0] for one in valid})
    again = split(given[::-1], share, seed)
    assert again == (train[::-1], valid[::-1])
    if len(set(texts)) >= 5:
        assert len({one.texts[0] for one in valid}) == max(round(len(set(texts)) * share), 1)
    else:
        assert not valid


def test_no_more_is_kept_aside_than_helps() -> None:
    assert find_validation_limit(range(100_000), 0.5) == 4_999
