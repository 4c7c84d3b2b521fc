"""The blind duel: who wrote what is not to be seen, votes are counted for the right model, the score is honest."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from chat_app.errors import DataError
from chat_app.evaluation.blind_test import Duel, score, sign_test, wilson_interval


def duel_of(count: int, seed: int = 0) -> Duel:
    return Duel(
        [f"question {n}" for n in range(count)],
        [f"answer {n} by a" for n in range(count)],
        [f"answer {n} by b" for n in range(count)],
        seed,
    )


def test_every_prompt_is_on_one_card_with_both_answers() -> None:
    cards = duel_of(9).cards
    assert sorted(card.prompt for card in cards) == [f"question {n}" for n in range(9)]
    for card in cards:
        number = card.prompt.split()[1]
        assert {card.first, card.second} == {f"answer {number} by a", f"answer {number} by b"}


def test_a_card_tells_nothing_of_who_wrote_which() -> None:
    duel = Duel(["q"] * 8, ["left"] * 8, ["right"] * 8, seed=1)
    assert set(asdict(duel.cards[0])) == {"number", "prompt", "first", "second"}
    assert duel.winner(0) is None
    assert "swap" not in repr(duel)


@pytest.mark.parametrize("seed", range(5))
def test_each_model_stands_first_in_half_of_the_cards(seed: int) -> None:
    assert sum(card.first.endswith("a") for card in duel_of(20, seed).cards) == 10
    assert sum(card.first.endswith("a") for card in duel_of(7, seed).cards) in (3, 4)


def test_another_seed_gives_another_order_and_the_same_seed_the_same() -> None:
    assert duel_of(20, 1).cards == duel_of(20, 1).cards
    sides = {tuple(card.first.endswith("a") for card in duel_of(20, seed).cards) for seed in range(5)}
    assert len(sides) == 5


def test_votes_count_for_the_model_that_wrote_the_answer() -> None:
    duel = duel_of(20, 3)
    for card in duel.cards:  # Somebody who always likes b better.
        duel.vote(card.number, "first" if card.first.endswith("b") else "second")
        assert duel.winner(card.number) == "b"
    assert duel.next_card is None
    found = duel.score("the old model", "the new model")
    assert (found.wins_a, found.wins_b, found.ties) == (0, 20, 0)
    assert found.sentence.startswith("The new model was preferred in 20 of 20 answers")
    assert found.is_decided


def test_somebody_who_always_votes_for_one_side_proves_nothing() -> None:
    duel = duel_of(20)
    for card in duel.cards:
        duel.vote(card.number, "first")
    assert duel.score("a", "b").share == 0.5


def test_a_vote_can_be_changed_and_taken_back() -> None:
    duel = duel_of(3)
    duel.vote(0, "first")
    before = duel.winner(0)
    duel.vote(0, "second")
    assert {before, duel.winner(0)} == {"a", "b"}
    duel.vote(0, "tie")
    assert duel.winner(0) == "tie"
    duel.take_back(0)
    assert duel.next_card == duel.cards[0]
    assert duel.votes == {}


def test_same_answers_are_not_voted_on() -> None:
    duel = Duel(["x", "y"], ["yes", "no"], ["yes ", "maybe"], seed=0)
    assert [card.prompt for card in duel.cards] == ["y"]
    assert duel.same == 1
    with pytest.raises(DataError, match="same words"):
        Duel(["x"], ["yes"], ["yes"], seed=0)


def test_what_cannot_be_a_vote_is_refused() -> None:
    duel = duel_of(2)
    with pytest.raises(DataError, match="no answer number 3"):
        duel.vote(2, "first")
    with pytest.raises(DataError, match="no answer number 0"):
        duel.vote(-1, "first")
    with pytest.raises(DataError, match="A vote is"):
        duel.vote(0, "both")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="2 prompts have 1 and 2 answers"):
        Duel(["x", "y"], ["a"], ["b", "c"], seed=0)


@pytest.mark.parametrize(
    ("wins", "total", "low", "high"),
    [
        (0, 0, 0.0, 1.0), (0, 10, 0.0, 0.2775), (14, 20, 0.4810, 0.8545), (10, 20, 0.2993, 0.7007),
        (81, 263, 0.2553, 0.3662),
    ],
)  # fmt: skip
def test_the_interval_is_wilsons(wins: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(wins, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("a", "b", "chance"), [(0, 0, 1), (1, 0, 1), (5, 5, 1), (5, 0, 2 / 32), (0, 6, 2 / 64), (14, 6, 0.115318)]
)
def test_the_sign_test_is_exact(a: int, b: int, chance: float) -> None:
    assert sign_test(a, b) == pytest.approx(chance, abs=1e-6)
    assert sign_test(b, a) == sign_test(a, b)


@pytest.mark.parametrize(
    ("wins_a", "wins_b", "ties", "sentence"),
    [
        (
            14, 6, 0,
            "The taught model was preferred in 14 of 20 answers; with so few votes the true share lies between 48 % "
            "and 85 %: not decided yet.",
        ),
        (
            2, 18, 1,
            "The starter was preferred in 18 of 20 answers; the true share lies between 70 % and 97 %: it is better. "
            "1 tie besides.",
        ),
        (
            3, 3, 2,
            "The taught model and the starter were preferred equally often, 3 times each; the true share lies between "
            "19 % and 81 %: not decided. 2 ties besides.",
        ),
        (
            7, 1, 0,
            "The taught model was preferred in 7 of 8 answers; by chance alone so clear a lead comes in "
            "7 % of all duels: not decided yet.",
        ),
        (0, 0, 3, "Nobody has won an answer yet. 3 ties besides."),
    ],
)  # fmt: skip
def test_the_score_is_a_plain_sentence(wins_a: int, wins_b: int, ties: int, sentence: str) -> None:
    votes = [*["a"] * wins_a, *["b"] * wins_b, *["tie"] * ties]
    assert score(votes, "the taught model", "the starter").sentence == sentence
