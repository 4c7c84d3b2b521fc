"""What is left out when the window is full, and that every reply is learned exactly once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_app.conversation import Conversation, Message
from chat_app.errors import DataError
from chat_app.tokenization.chat_formats import FORMATS, get_format
from chat_app.tokenization.encoder import IGNORE_INDEX, Encoder
from tests.tokenization.test_chat_formats import gpt2_tokenizer

pytestmark = pytest.mark.slow_file

NAMES = [name for name in FORMATS if name != "template"]


def encoder_of(name: str, window: int) -> Encoder:
    return Encoder(gpt2_tokenizer(), get_format(name), window)


@pytest.fixture(scope="module", params=NAMES)
def small(request: Any) -> Encoder:
    return encoder_of(request.param, 40)


def test_oldest_whole_turns_are_dropped(small: Encoder) -> None:
    turns = [f"turn number {number} says word word word" for number in range(9)]
    conversation = Conversation.from_turns(turns, system="Be kind", last="user")
    prompt = small.prompt(conversation)
    assert len(prompt.ids) <= 40
    assert prompt.dropped_turns > 0
    kept = conversation.keep_latest(len(turns) - prompt.dropped_turns)
    assert prompt.ids == small.prompt(kept).ids
    assert prompt.cut_tokens == 0
    longer = conversation.keep_latest(len(turns) - prompt.dropped_turns + 1)
    assert small.prompt(longer).dropped_turns == 1


def test_system_text_and_reply_stay(small: Encoder) -> None:
    conversation = Conversation.from_turns(["long " * 50, "The reply stays"], system="Be kind")
    example = small.example(conversation)
    assert len(example.ids) <= 40
    assert example.cut_tokens > 0
    assert example.dropped_turns == 0
    learned = [label for label in example.labels if label != IGNORE_INDEX]
    assert small.text_of(learned[:3]) == "The reply stays"
    for token in small.text_ids("Be kind")[1:]:
        assert token in example.ids


def test_a_turn_too_long_loses_its_beginning(small: Encoder) -> None:
    prompt = small.prompt(Conversation.from_turns(["first " * 60 + "the very last words"]))
    assert len(prompt.ids) <= 40
    assert prompt.cut_tokens > 0
    assert "the very last words" in small.text_of([one for one in prompt.ids if one < 50256])


def test_room_is_left_for_the_reply(small: Encoder) -> None:
    turns = ["word " * 5 for _ in range(7)]
    assert len(small.prompt(Conversation.from_turns(turns, last="user"), reserve=15).ids) <= 25


def test_system_text_that_fills_the_window_is_an_error(small: Encoder) -> None:
    with pytest.raises(DataError, match="Shorten the system text"):
        small.prompt(Conversation.from_turns(["Hi"], system="much " * 80))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 22), min_size=2, max_size=14),
    learn=st.sampled_from(["replies", "all"]),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    max_turns=st.sampled_from([0, 3]),
)
def test_every_reply_is_learned_once(name: str, lengths: list[int], learn: Any, share: float, max_turns: int) -> None:
    """Each turn has a word of its own; the rows together learn each word once. Any two turns fit into the window."""
    words = [" apple", " river", " stone", " cloud", " horse", " music", " green", " table", " night", " sugar"]
    words += [" paper", " glass", " tiger", " ocean"]
    turns = ["x" + words[index] * length for index, length in enumerate(lengths)]
    encoder = Encoder(gpt2_tokenizer_once(), get_format(name), 60)
    conversation = Conversation.from_turns(turns)
    rows = encoder.examples(conversation, learn, share, max_turns)
    assert all(len(row.ids) <= 60 for row in rows)
    learned = [label for row in rows for label in row.labels if label != IGNORE_INDEX]
    for index, turn in enumerate(conversation.turns):
        (token,) = encoder.text_ids(words[index])
        is_learned = learn == "all" or turn.role == "assistant"
        assert learned.count(token) == (lengths[index] if is_learned else 0)


_TOKENIZER = gpt2_tokenizer()


def gpt2_tokenizer_once() -> Any:
    """One tokenizer for the many examples of a property: marks only ever get added."""
    return _TOKENIZER


def test_excluded_replies_are_context_only() -> None:
    conversation = Conversation(
        (
            Message("user", "a"),
            Message("assistant", "bad", in_loss=False),
            Message("user", "b"),
            Message("assistant", "good"),
        )
    )
    encoder = encoder_of("roles", 100)
    example = encoder.example(conversation)
    assert encoder.text_of([one for one in example.labels if one != IGNORE_INDEX][:-1]) == "good"


def test_one_reply_formats_make_a_row_for_each_reply() -> None:
    conversation = Conversation.from_turns(["a", "b", "c", "d", "e", "f"])
    for name in ("speaker", "pair"):
        assert len(encoder_of(name, 100).examples(conversation)) == 3
    assert len(encoder_of("roles", 100).examples(conversation)) == 1


def test_nothing_to_learn_makes_no_row() -> None:
    assert encoder_of("roles", 100).examples(Conversation.from_turns(["only the user"])) == []
