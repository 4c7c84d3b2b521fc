"""A blind test of two models (a duel on the page): both answer the same prompts, in random order; votes and a score.

What is shown before a vote holds no name. Knows no model and no page.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from chat_app.errors import DataError

Vote = Literal["first", "second", "tie"]
Winner = Literal["a", "b", "tie"]
MOST_PROMPTS = 1_000
CONFIDENCE = 0.95
_Z = 1.959963984540054  # The normal distribution has 95 % within so many standard deviations.


@dataclass(frozen=True, slots=True)
class Card:
    """What a person sees before they vote: a prompt and two answers, without who wrote which."""

    number: int
    prompt: str
    first: str
    second: str


class Duel:
    """One duel, held where the page cannot see into it; only its cards are shown.

    In half of the cards the first model's answer stands first, so that a liking for one side changes nothing. Where
    both models said the same there is nothing to vote on, and no card.

    Args:
        prompts: what was asked.
        replies_a, replies_b: what the models answered to each.
        seed: decides the order; it must not be shown.

    Raises:
        DataError: the lists do not belong together, or no answer differs.
    """

    def __init__(self, prompts: Sequence[str], replies_a: Sequence[str], replies_b: Sequence[str], seed: int):
        if not len(prompts) == len(replies_a) == len(replies_b):
            raise DataError(f"{len(prompts)} prompts have {len(replies_a)} and {len(replies_b)} answers.")
        if len(prompts) > MOST_PROMPTS:
            raise DataError(f"A duel has at most {MOST_PROMPTS:,} prompts.", advice="Choose fewer.")
        rows = list(zip(prompts, replies_a, replies_b, strict=True))
        different = [row for row in rows if row[1].strip() != row[2].strip()]
        if not different:
            raise DataError(
                "Both models answered every prompt in the same words.", advice="Choose other prompts, or other models."
            )
        self.same = len(rows) - len(different)
        chance = random.Random(seed)
        chance.shuffle(different)
        extra = chance.randrange(2)  # Of an odd number of cards, either model may stand first once more.
        swapped = [index < (len(different) + extra) // 2 for index in range(len(different))]
        chance.shuffle(swapped)
        self.cards = tuple(
            Card(number, prompt, *((b, a) if swap else (a, b)))
            for number, ((prompt, a, b), swap) in enumerate(zip(different, swapped, strict=True))
        )
        self._swapped = swapped
        self._votes: dict[int, Vote] = {}

    def __repr__(self) -> str:
        return f"Duel({len(self.cards)} cards, {len(self._votes)} votes)"

    @property
    def votes(self) -> Mapping[int, Vote]:
        """Card number -> what was voted."""
        return dict(self._votes)

    @property
    def next_card(self) -> Card | None:
        """The first card without a vote; None when all have one."""
        return next((card for card in self.cards if card.number not in self._votes), None)

    def vote(self, number: int, vote: Vote) -> None:
        """Vote on a card; a later vote takes the place of an earlier one.

        Raises:
            DataError: there is no such card or vote.
        """
        if vote not in get_args(Vote):
            raise DataError("A vote is for the first answer, the second, or neither.")
        if not 0 <= number < len(self.cards):
            raise DataError(f"There is no answer number {number + 1} in this duel.")
        self._votes[number] = vote

    def take_back(self, number: int) -> None:
        """Forget the vote on a card."""
        self._votes.pop(number, None)

    def winner(self, number: int) -> Winner | None:
        """Who won a card: "a", "b" or "tie"; None before the vote, so that nothing is given away."""
        vote = self._votes.get(number)
        if vote is None or vote == "tie":
            return vote
        return "b" if (vote == "first") == self._swapped[number] else "a"

    def replies(self, number: int) -> tuple[str, str] | None:
        """What the models a and b answered on a card; None before the vote, so that nothing is given away."""
        if number not in self._votes:
            return None
        card = self.cards[number]
        return (card.second, card.first) if self._swapped[number] else (card.first, card.second)

    def score(self, name_a: str, name_b: str) -> Score:
        """The score of the votes so far."""
        winners = (self.winner(number) for number in self._votes)
        return score([one for one in winners if one is not None], name_a, name_b)


@dataclass(frozen=True, slots=True)
class Score:
    """How a duel stands.

    Attributes:
        wins_a, wins_b, ties: votes.
        share: of the votes that were no ties, those for a; 0.5 without any.
        low, high: between these the true share lies, with 95 % confidence.
        chance: how likely at least such a lead is among models that are equally good (two-sided sign test).
        sentence: all that for a person.
    """

    wins_a: int
    wins_b: int
    ties: int
    share: float
    low: float
    high: float
    chance: float
    sentence: str

    @property
    def is_decided(self) -> bool:
        """Whether the lead is more than chance: by the exact test, at 5 %."""
        return self.chance < 1 - CONFIDENCE


def score(votes: Iterable[Winner], name_a: str = "the first model", name_b: str = "the second model") -> Score:
    """Count votes and say what they prove. Ties are counted but prove nothing for either side.

    Args:
        name_a, name_b: as they stand inside a sentence, such as "the taught model".
    """
    counts = Counter(votes)
    wins_a, wins_b, ties = counts["a"], counts["b"], counts["tie"]
    total = wins_a + wins_b
    share = wins_a / total if total else 0.5
    low, high = wilson_interval(wins_a, total)
    chance = sign_test(wins_a, wins_b)
    sentence = _sentence(wins_a, wins_b, ties, chance, name_a, name_b)
    return Score(wins_a, wins_b, ties, share, low, high, chance, sentence)


def wilson_interval(wins: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of a share (E. B. Wilson, Journal of the American Statistical Association 22, 1927,
    209-212). Without votes everything is possible: 0 to 1."""
    if not total:
        return 0.0, 1.0
    share, squared = wins / total, _Z * _Z
    centre = (share + squared / (2 * total)) / (1 + squared / total)
    half = _Z / (1 + squared / total) * math.sqrt(share * (1 - share) / total + squared / (4 * total * total))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def sign_test(wins_a: int, wins_b: int) -> float:
    """The exact two-sided sign test: the probability of a split at least as uneven if both were equally likely to win
    (Binomial(n, 1/2); W. J. Conover, Practical Nonparametric Statistics, section 3.4)."""
    total, more = wins_a + wins_b, max(wins_a, wins_b)
    tail = sum(math.comb(total, k) for k in range(more, total + 1))
    return float(min(2 * tail / 2**total, 1.0))


def _sentence(wins_a: int, wins_b: int, ties: int, chance: float, name_a: str, name_b: str) -> str:
    total = wins_a + wins_b
    even = f" {_counted(ties, 'tie')} besides." if ties else ""
    if not total:
        return f"Nobody has won an answer yet.{even}"
    if wins_a == wins_b:
        low, high = wilson_interval(wins_a, total)
        return (
            f"{_capital(name_a)} and {name_b} were preferred equally often, {wins_a} times each; "
            f"the true share lies between {low:.0%} and {high:.0%}: not decided.{even}".replace("%", " %")
        )
    leader, wins = (name_a, wins_a) if wins_a > wins_b else (name_b, wins_b)
    low, high = wilson_interval(wins, total)
    preferred = f"{_capital(leader)} was preferred in {wins} of {_counted(total, 'answer')}; "
    between = f"the true share lies between {low:.0%} and {high:.0%}".replace("%", " %")
    if chance < 1 - CONFIDENCE:
        return f"{preferred}{between}: it is better.{even}"
    if low > 0.5:  # The interval is an approximation, and of few votes a little too sure.
        between = f"by chance alone so clear a lead comes in {chance:.0%} of all duels".replace("%", " %")
    few = "with so few votes " if total < 100 and low <= 0.5 else ""
    return f"{preferred}{few}{between}: not decided yet.{even}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]
