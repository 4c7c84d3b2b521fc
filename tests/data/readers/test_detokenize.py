"""Tokenised text becomes text as people write it: the original's way to the letter, ours without its faults."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_app.data.readers.detokenize import detokenize, looks_tokenised, tidy_text

# What the preprocessing of gpt2-dialogue-generation gives.
LEGACY = [
    (
        "say , jim , how about going for a few beers after dinner ?",
        "Say, Jim, How about going for a few beers after dinner?",
    ),
    ("I don ' t think so .", "I don't think so."),
    ('He said " hello there " to me', 'He said "hello there" to me.'),
    ("hello", "Hello."),
    ("I don ’ t think so .", "I don't think so."),
    ("it costs 3 . 5", "It costs 3. 5."),
    ("", ""),
]

OURS = [
    (
        "say , jim , how about going for a few beers after dinner ?",
        "Say, jim, how about going for a few beers after dinner?",
    ),
    ("Say , Jim , how about it ?", "Say, Jim, how about it?"),
    ("I don ’ t think so .", "I don't think so."),
    ('He said " hello there " to me', 'He said "hello there" to me.'),
    ("hello", "Hello."),
    ("it costs 3 . 5 dollars at 10 : 30 , or $ 1 , 000 .", "It costs 3.5 dollars at 10:30, or $1,000."),
    ("one , two , 3 , 4", "One, two, 3, 4."),
    ("well . . . i do n't know", "Well... i don't know."),
    ("wait ... what ?", "Wait... what?"),
    ("I 'm fine , it ' s ok , we ' ll see", "I'm fine, it's ok, we'll see."),
    ("she can ' t . he won ' t .", "She can't. He won't."),
    ("( hello ) she said `` yes '' .", '(Hello) she said "yes".'),
    ("the U . S . A . is big", "The U.S.A. is big."),
    ("at 5 p . m . tomorrow", "At 5 p.m. tomorrow."),
    ("Mr . brown is here . he left", "Mr. brown is here. He left."),
    ("great : ) yes", "Great :) yes."),
    ("the dogs ' food", "The dogs' food."),
    ("he said ' hi there ' to me", "He said 'hi there' to me."),
    ("9 o ' clock ?", "9 o'clock?"),
    ("what ? ! no", "What?! No."),
    ("visit amazon . com now", "Visit amazon.com now."),
    ('a " b', 'A " b.'),
    ("hi! 😀", "Hi! 😀"),
    ("Say, Jim, how are you?", "Say, Jim, how are you?"),
    ("   ", ""),
]


@pytest.mark.parametrize(("text", "expected"), LEGACY)
def test_legacy_is_the_original_to_the_letter(text: str, expected: str) -> None:
    assert detokenize(text, legacy=True) == expected


@pytest.mark.parametrize(("text", "expected"), OURS)
def test_our_own_repair_makes_no_false_capitals(text: str, expected: str) -> None:
    assert detokenize(text) == expected


pieces = st.sampled_from(
    [
        " ",
        " . ",
        " , ",
        "...",
        ' " ',
        " ' ",
        "'",
        "``",
        "''",
        "n't",
        " s",
        "( ",
        " )",
        ":",
        "3",
        "a",
        "I",
        "Mr",
        "?",
        "ß",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(pieces, st.text(max_size=3)), max_size=25).map("".join))
def test_repairing_twice_changes_nothing_more(text: str) -> None:
    once = detokenize(text)
    assert detokenize(once) == once
    assert [sign for sign in once if sign.isdigit()] == [sign for sign in text if sign.isdigit()]


def test_what_looks_tokenised() -> None:
    for text in ("hello , you", "why ?", "it ' s", "do n't", "it 's"):
        assert looks_tokenised(text)
    for text in ("Hello, you.", "3.5", "it's", "don't", "one... two", "hi"):
        assert not looks_tokenised(text)


def test_the_setting_decides() -> None:
    text = "well , it ' s late"
    assert tidy_text(text, "automatic") == "Well, it's late."
    assert tidy_text(text, "legacy") == "Well, It's late."
    assert tidy_text(text, "off") == text
    assert tidy_text("see you at nine", "automatic", tokenised=False) == "see you at nine"


def test_much_text_takes_no_more_than_its_share() -> None:
    assert detokenize("( " * 50_000).startswith("((((")
    assert len(detokenize(". " * 50_000)) == 50_000
    assert detokenize("' " * 50_001)
