"""The curves of a training, and what can be measured on them. `diagnosis` has the rules that use it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from statistics import median
from typing import Any

FEWEST_POINTS, FEWEST_EVALUATIONS = 12, 5
STUCK_POINTS, STUCK_EVALUATIONS = 20, 8
ROW = 5
HIGH_SHARE, HIGH_NOISE = 0.25, 2.0  # High: this share of the start, and this many times the noise, above the start.
RECOVERED = 0.75  # A level below this share of the origin has come down again.
EARLY_RISE = 1.5  # Times the first two points.
VALID_RISE = 1.05  # Times the first evaluation.
MARGIN_SHARE, MARGIN_ERRORS = 0.1, 4.0
LOST_SHARE = 0.5  # Of the fall from the origin to the lowest level.
LEARNED_SHARE, LEARNED_ERRORS = 0.03, 4.0  # Of the start; standard errors.
IMPROVED = 0.99  # Times the first evaluation.
WORSE_SHARE, WORSE_NATS = 0.01, 0.02  # Of the best evaluation, and at least so many nats.
FLAT_SHARE, FLAT_GAIN = 0.01, 0.005  # Of the best evaluation, or of all that the evaluations gained.
FLAT_TRAIN, CLEAR_SHARE = 0.03, 0.05  # Of all that the training loss gained: the fall, and the standard error.
MOST_POINTS = 600


@dataclass(frozen=True)
class LossCurves:
    """The curves of a training.

    Attributes:
        train: training losses, oldest first, at most about MOST_POINTS; not a number where it was none.
        train_steps, rates: their steps and learning rates.
        first: the first five that are numbers.
        valid: (step, loss) of the evaluations.
    """

    train: list[float]
    train_steps: list[int]
    rates: list[float]
    first: list[float]
    valid: list[tuple[int, float]]

    @classmethod
    def of(cls, metrics: Sequence[Mapping[str, Any]]) -> LossCurves:
        """The curves in the lines of a run. A line with a learning rate and no training loss had none that is a
        number."""
        points = [line for line in metrics if "learning_rate" in line or "train_loss" in line]
        stride = max(-(-len(points) // MOST_POINTS), 1)
        groups = [points[start : start + stride] for start in range(0, len(points), stride)]
        losses = (to_number(line.get("train_loss")) for line in points)
        evaluations = ((_step(line), to_number(line["valid_loss"])) for line in metrics if "valid_loss" in line)
        return cls(
            train=[median([to_number(line.get("train_loss")) for line in group]) for group in groups],
            train_steps=[_step(group[-1]) for group in groups],
            rates=[to_number(group[-1].get("learning_rate")) for group in groups],
            first=list(islice(filter(math.isfinite, losses), 5)),
            valid=[(step, loss) for step, loss in evaluations if math.isfinite(loss)],
        )

    @property
    def points(self) -> int:
        return len(self.train)

    @property
    def finite(self) -> list[float]:
        return [loss for loss in self.train if math.isfinite(loss)]

    @property
    def width(self) -> int:
        """How many points a level is taken from."""
        return min(max(self.points // 6, 5), 25)

    @property
    def start(self) -> float:
        """The loss of the first five points; not a number where there is none."""
        return median(self.first) if self.first else math.nan

    @property
    def origin(self) -> float:
        """The loss before anything was learned: of the first points, or of the first two where it rises at once."""
        first = median(self.first[:2])
        return min(self.start, max(first, self.valid[0][1]) if self.valid else first)

    @property
    def level(self) -> float:
        newest = self.finite[-self.width :]
        return median(newest) if newest else math.nan

    @property
    def best(self) -> tuple[int, float]:
        """Step and loss of the best evaluation."""
        return min(self.valid, key=lambda one: one[1])

    @property
    def noise(self) -> float:
        """The standard deviation of a point by chance, as if neighbours differed by nothing else."""
        losses = self.finite
        differences = [abs(after - before) for before, after in pairwise(losses)]
        return 1.4826 * median(differences) / math.sqrt(2) if differences else 0.0

    def standard_error(self, points: int = 5) -> float:
        """Of the difference between the level and a median of the first `points`. A median's is 1.25 times a mean's.

        What is no noise but a fall or a rise is bounded by a seventh of the start; of few points the noise itself is
        known badly, so it is taken to be greater.
        """
        losses = self.finite
        if len(losses) < 2:
            return 0.0
        noise = min(self.noise * (1 + 10 / len(losses)), 0.15 * self.start)
        return 1.25 * noise * math.sqrt(1 / min(points, len(losses)) + 1 / min(self.width, len(losses)))

    def levels(self) -> list[float]:
        """The level at each point, from the first that has enough points before it."""
        losses = self.finite
        return [median(losses[end - self.width : end]) for end in range(self.width, len(losses) + 1)]

    def diverges(self) -> bool:
        """Whether the training loss rises, or is no number any more."""
        if any(not math.isfinite(loss) for loss in self.train[-self.width :]):
            return True
        losses = self.finite
        if len(losses) < 4:
            return False
        rows = (losses[end - ROW : end] for end in range(ROW, len(losses) + 1))
        high = self.start + max(HIGH_SHARE * self.start, HIGH_NOISE * self.noise)
        if any(min(row) > high for row in rows) and self.level > RECOVERED * self.origin:
            return True
        if len(losses) < FEWEST_POINTS and min(losses[-2:]) > EARLY_RISE * median(self.first[:2]):
            return True
        if not self.is_long_enough():
            return False
        if len(self.valid) > 1 and self.valid[-1][1] > VALID_RISE * self.valid[0][1] and self.level > self.start:
            return True
        if len(losses) < FEWEST_POINTS:
            return False
        margin = max(MARGIN_SHARE * self.origin, MARGIN_ERRORS * self.standard_error(2))
        lowest = min(self.levels())
        gained = self.origin - lowest
        return self.level > self.origin + margin or (
            gained > margin and self.level > lowest + max(margin, LOST_SHARE * gained)
        )

    def is_long_enough(self) -> bool:
        """Whether there are enough points, or evaluations, to tell anything."""
        return self.points >= FEWEST_POINTS or len(self.valid) >= FEWEST_EVALUATIONS

    def warms_up(self) -> bool:
        """Whether the learning rate is still on its way up."""
        rates = self.rates[-2:]
        return len(rates) == 2 and rates[1] > rates[0]

    def has_learned(self) -> bool:
        """Whether either curve has fallen for certain."""
        fallen = max(LEARNED_ERRORS * self.standard_error(), LEARNED_SHARE * self.start)
        return self.generalises() or self.start - self.level > fallen

    def generalises(self) -> bool:
        """Whether some evaluation was better than the first by a hundredth."""
        return len(self.valid) >= 2 and self.best[1] < IMPROVED * self.valid[0][1]

    def memorises(self) -> bool:
        """Whether it overfits: the validation loss rises while the training loss does not."""
        if not self.valid:
            return False
        step, best = self.best
        later = [loss for at, loss in self.valid if at > step]
        if len(later) < 2 or later[-1] < best + max(WORSE_NATS, WORSE_SHARE * best):
            return False
        before = [loss for at, loss in zip(self.train_steps, self.train, strict=True) if at <= step]
        then = median(before[-self.width :]) if before else self.start
        return not self.level > then + self.standard_error()  # Without any training points the evaluations tell.

    def is_stuck(self, has_validation: bool) -> bool:
        """Whether nothing has been learned for long enough after the warm-up."""
        if self.has_learned():
            return False
        points, evaluations = self.after_warm_up()
        if points < STUCK_POINTS and evaluations < STUCK_EVALUATIONS:
            return False
        return not has_validation or len(self.valid) >= 3

    def after_warm_up(self) -> tuple[int, int]:
        """How many training points, and how many evaluations, there are since the learning rate was highest."""
        highest = max((rate for rate in self.rates if math.isfinite(rate)), default=0.0)
        begin = next((at for at, rate in enumerate(self.rates) if rate >= highest), 0)
        rose_until = self.train_steps[begin - 1] if begin else 0
        return self.points - begin, sum(step >= rose_until for step, _ in self.valid)

    def is_flat(self, has_validation: bool) -> bool:
        """Whether the curves have stopped falling."""
        if has_validation:
            if len(self.valid) < 4 or not self.generalises():
                return False
            newest = max(3, len(self.valid) // 3)
            losses = [loss for _, loss in self.valid]
            before, best = min(losses[:-newest]), min(losses)
            return before - best < max(FLAT_SHARE * best, FLAT_GAIN * (losses[0] - best))
        third = len(self.finite) // 3
        if third < FEWEST_POINTS:
            return False
        middle, newest_third = self.finite[third:-third], self.finite[-third:]
        gained = self.start - self.level
        is_clear = self.standard_error() < CLEAR_SHARE * gained
        return is_clear and median(middle) - median(newest_third) < FLAT_TRAIN * gained


def to_number(value: Any) -> float:
    """A value of a line of metrics; not a number where it is none."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _step(line: Mapping[str, Any]) -> int:
    value = line.get("step", 0)
    return value if isinstance(value, int) else 0
