"""Other wordings of what the user says."""

from __future__ import annotations

import random

import pytest

from chat_app.conversation import Conversation
from chat_app.data.augmentation import UserNoise, add_noise

ENGLISH = [
    Conversation.from_turns(["Hello there", "Hi!", "When do you open in the morning?", "At nine."]),
    Conversation.from_turns(["Do you have a car park?", "Behind the house."]),
    Conversation.from_turns(["Where can I leave my bicycle?", "Beside the door."]),
]
CHINESE = [Conversation.from_turns(["你们早上几点开门?", "九点。"]), Conversation.from_turns(["可以停车吗?", "可以。"])]
GERMAN = [Conversation.from_turns(["Wann machen Sie morgens auf?", "Um neun."])]


@pytest.mark.parametrize("conversations", [ENGLISH, CHINESE, GERMAN], ids=["English", "Chinese", "German"])
def test_only_what_the_user_says_changes(conversations: list[Conversation]) -> None:
    noise, chance, changed = UserNoise(conversations), random.Random(1), 0
    for one in conversations * 50:
        other = noise.reword(one, chance)
        assert [message.role for message in other.messages] == [message.role for message in one.messages]
        for before, after in zip(one.turns, other.turns, strict=True):
            assert after.text.strip()
            if before.role == "assistant":
                assert after.text == before.text
            changed += after.text != before.text
    assert changed > 25 * len(conversations)


def test_english_words_are_added_to_english_only() -> None:
    assert UserNoise(ENGLISH).is_english
    noise, chance = UserNoise(GERMAN), random.Random(2)
    assert not noise.is_english
    known = {"wann", "machen", "sie", "morgens", "auf"}
    words = {word for _ in range(200) for word in noise.reword(GERMAN[0], chance).turns[0].text.lower().split()}
    assert {word.strip("?") for word in words} & known
    assert "please" not in words


def test_the_same_seed_gives_the_same_wordings() -> None:
    said = "Could you tell me when the shop opens?"
    assert [add_noise(said, random.Random(seed), english=True) for seed in range(20)] == [
        add_noise(said, random.Random(seed), english=True) for seed in range(20)
    ]
    assert len({add_noise(said, random.Random(seed), english=True) for seed in range(20)}) > 10


def test_short_texts_stay_something() -> None:
    for text in ("Hi", "?", "a b", "  "):
        for seed in range(30):
            assert add_noise(text, random.Random(seed), english=True)
