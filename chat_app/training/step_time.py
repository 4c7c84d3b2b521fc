"""A linear model of step time: the work in a batch, the seconds that the work costs, and a duration in words.

seconds = a + b * work is fitted by the median of slopes (Theil and Sen), which no single slow step can bend. The work
of a batch is the number of multiplications on the way through the model: with T positions in rows of a length L, each
position meets every weight but those of the embedding, and L others in each layer; a learned token meets the embedding.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from chat_app.tokenization.encoder import Example
from chat_app.training.collator import fill_rows
from chat_app.training.memory_estimate import ModelShape

_SIMULATED = 500


@dataclass(frozen=True)
class StepTimeModel:
    """Seconds of a step: `fixed`, and `a_unit` for each unit of work."""

    fixed: float
    a_unit: float

    def seconds(self, work: float) -> float:
        """Of a step with so much work."""
        return self.fixed + self.a_unit * work


def fit_step_time(work: Sequence[float], seconds: Sequence[float]) -> StepTimeModel:
    """The line through measured steps. Neither part is below zero."""
    points = list(zip(work, seconds, strict=True))
    slopes = [(s2 - s1) / (w2 - w1) for (w1, s1), (w2, s2) in combinations(points, 2) if abs(w2 - w1) > 0.02 * w2]
    slope = max(statistics.median(slopes), 0.0) if slopes else 0.0
    fixed = statistics.median(second - slope * one for one, second in points)
    if fixed < 0:
        return StepTimeModel(0.0, statistics.median(second / one for one, second in points))
    return StepTimeModel(fixed, slope)


def compute_work(shape: ModelShape, batches: Sequence[Sequence[Example]]) -> float:
    """The work of a step that is computed in these batches."""
    table = shape.vocabulary * shape.width
    total = 0.0
    for batch in batches:
        lengths = [len(row.ids) for row in batch]
        rows, length = len(fill_rows(lengths)), -(-max(lengths) // 8) * 8
        total += rows * length * (shape.parameters - table + 2.0 * shape.layers * shape.width * length)
        total += table * sum(row.loss_tokens for row in batch)
    return total


def simulate_steps(rows: Sequence[Example], size: int, seed: int = 0) -> list[list[Example]]:
    """The rows of steps as they will come: drawn as the training draws them, but not the same."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    size = min(size, len(rows))
    starts = list(range(0, len(order), size))[:_SIMULATED]
    return [[rows[index] for index in order[start : start + size]] for start in starts]


def split_into_batches(step: Sequence[Example], size: int) -> list[Sequence[Example]]:
    """The batches in which a step is computed."""
    return [step[start : start + size] for start in range(0, len(step), size)]
