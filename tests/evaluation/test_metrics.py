"""Small cases whose scores can be computed by hand."""

from __future__ import annotations

import pytest

from chat_app.evaluation.metrics import bleu, distinct, penalty, reward, words


def test_words() -> None:
    assert words("Don't stop, now!") == ["don't", "stop", ",", "now", "!"]


def test_bleu_of_the_same_text_is_100() -> None:
    assert bleu(["the cat sat on the mat"], ["the cat sat on the mat"]) == pytest.approx(100)
    assert bleu(["dogs"], ["the cat sat on the mat"]) < 5
    assert bleu([], []) == 0


def test_distinct() -> None:
    assert distinct(["a b a b"], 1) == 0.5
    assert distinct(["a b a b"], 2) == pytest.approx(2 / 3)
    assert distinct(["a"], 2) == 0


def test_reward_is_the_share_of_expected_words() -> None:
    assert reward(["we open at nine"], ["we close at nine"]) == 0.75
    assert reward(["nine nine"], ["nine"]) == 1
    assert reward([""], [""]) == 0


def test_penalty_is_the_share_of_immediate_repeats() -> None:
    assert penalty(["the the cat"]) == pytest.approx(1 / 3)
    assert penalty(["fine"]) == 0
