"""Loss against time: a clock that can be held, the curve of a training, the table of several, and what follows.

Knows nothing of models but that somebody can measure them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GOAL = 1 / 6


class Stopwatch:
    """Seconds of training; it stands still while something is measured.

    Args:
        now: the clock to read, such as time.perf_counter or time.process_time.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self._now = now
        self._counted = 0.0
        self._since: float | None = now()

    @property
    def seconds(self) -> float:
        """Counted so far."""
        return self._counted + (self._now() - self._since if self._since is not None else 0.0)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing counts inside."""
        self._counted, self._since = self.seconds, None
        try:
            yield
        finally:
            self._since = self._now()


@dataclass(frozen=True, slots=True)
class Point:
    """A measurement: after so many seconds of training and so many steps."""

    seconds: float
    step: int
    loss: float


@dataclass
class Curve:
    """How a training went.

    Attributes:
        name: of the procedure.
        points: oldest first; the first one is before the first step.
        final: the loss of the model that the procedure hands over, which is the best by its own rules.
        ended: why it ended.
    """

    name: str
    points: list[Point] = field(default_factory=list)
    final: float = math.nan
    ended: str = ""

    @property
    def best(self) -> Point:
        """The lowest loss, the first time it was there."""
        return min(self.points, key=lambda point: point.loss)

    def first_at(self, loss: float) -> Point | None:
        """The first measurement that is as low."""
        return next((point for point in self.points if point.loss <= loss), None)

    def loss_at(self, seconds: float) -> float | None:
        """The newest measurement by then."""
        before = [point.loss for point in self.points if point.seconds <= seconds]
        return before[-1] if before else None


class Watch:
    """Measures a model now and then while it learns, outside of the time that counts.

    Args:
        measure: model -> loss.
        looks: about how many measurements to spread over all steps, and over the time where that ends first.
        most_seconds: a training is to stop after so many.
    """

    def __init__(
        self,
        name: str,
        stopwatch: Stopwatch,
        measure: Callable[[Any], float],
        looks: int,
        most_seconds: float = math.inf,
    ):
        self.curve = Curve(name)
        self.stopwatch, self.measure = stopwatch, measure
        self.looks, self.most_seconds = looks, most_seconds

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self.stopwatch.seconds >= self.most_seconds

    def is_due(self, step: int, total: int) -> bool:
        """Whether to measure after this step of so many."""
        last = self.curve.points[-1].seconds if self.curve.points else 0.0
        is_long_ago = self.stopwatch.seconds - last >= self.most_seconds / self.looks
        return step % max(total // self.looks, 1) == 0 or step == total or is_long_ago

    def look(self, model: Any, step: int) -> float:
        """Measure, unless it was done after this very step."""
        points = self.curve.points
        if points and points[-1].step == step:
            return points[-1].loss
        seconds = self.stopwatch.seconds
        with self.stopwatch.held():
            points.append(Point(seconds, step, self.measure(model)))
        return points[-1].loss


@dataclass(frozen=True)
class Summary:
    """Ours beside the best of the others.

    Attributes:
        rival: the name of the curve with the lowest loss of all but ours.
        best: that loss, and when it was there first.
        reached: when ours was first as low, None if never.
        ratio: our seconds over its seconds.
        final: the loss of our model in the end.
    """

    rival: str
    best: Point
    reached: Point | None
    ratio: float | None
    final: float

    @property
    def is_met(self) -> bool:
        """At most a sixth of the time, and a lower end."""
        return self.ratio is not None and self.ratio <= GOAL and self.final < self.best.loss

    def sentences(self) -> str:
        """For a person."""
        lines = [f"The lowest loss of the others: {self.best.loss:.4f}, {self.rival} after {self.best.seconds:.1f} s."]
        if self.reached is None or self.ratio is None:
            lines.append("Ours never came so low.")
        else:
            lines.append(
                f"Ours was there after {self.reached.seconds:.1f} s (at {self.reached.loss:.4f}): {self.ratio:.3f} of "
                f"the time, {1 / self.ratio:.1f} times as fast."
            )
        lines.append(f"Ours ends at {self.final:.4f}, {self.final - self.best.loss:+.4f} beside that.")
        lines.append("The goal (a sixth of the time, and a lower end) is " + ("met." if self.is_met else "not met."))
        return "\n".join(lines)


def summary_of(ours: Curve, others: Sequence[Curve]) -> Summary:
    """Compare. What one of the others reaches counts at its lowest, whether or not it would keep that model."""
    rival = min(others, key=lambda curve: curve.best.loss)
    best = rival.best
    reached = ours.first_at(best.loss)
    ratio = max(reached.seconds, 1e-9) / max(best.seconds, 1e-9) if reached else None
    return Summary(rival.name, best, reached, ratio, ours.final)


def moments(curves: Sequence[Curve], count: int = 16) -> list[float]:
    """Seconds at which to compare: evenly on a scale of logarithms, from the first measurement to the last."""
    seconds = [point.seconds for curve in curves for point in curve.points if point.step]
    first, last = math.log(max(min(seconds), 1e-3)), math.log(max(seconds))
    return [math.exp(first + (last - first) * place / (count - 1)) for place in range(count - 1)] + [max(seconds)]


def table(curves: Sequence[Curve]) -> str:
    """The loss of each at several moments; after its end, in brackets, the loss it ended with."""
    lines = [" ".join(["seconds".rjust(9), *(curve.name.rjust(18) for curve in curves)])]
    for moment in moments(curves):
        cells = [f"{moment:9.1f}"]
        for curve in curves:
            loss = curve.loss_at(moment)
            text = "" if loss is None else f"{loss:.4f}"
            cells.append((f"({text})" if moment > curve.points[-1].seconds else text).rjust(18))
        lines.append(" ".join(cells))
    return "\n".join(lines)


def ends(curves: Sequence[Curve]) -> str:
    """A line for each: where it began, its lowest, and its end."""
    lines = []
    for curve in curves:
        first, best, last = curve.points[0], curve.best, curve.points[-1]
        lines.append(
            f"{curve.name}: from {first.loss:.4f}; lowest {best.loss:.4f} after {best.seconds:.1f} s (step {best.step})"
            f"; ended after {last.seconds:.1f} s (step {last.step}, {curve.ended}); keeps a model of {curve.final:.4f}."
        )
    return "\n".join(lines)


_COLOURS = ("#c2571a", "#3b6ea5", "#4f8a3c", "#7d5ba6")
_WIDTH, _HEIGHT, _EDGE = 960, 540, 70


def draw(curves: Sequence[Curve], path: Path) -> None:
    """A PNG: loss over seconds, which lie on a scale of logarithms."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    points = [point for curve in curves for point in curve.points]
    first, last = math.log(moments(curves)[0]), math.log(moments(curves)[-1])
    low, high = min(point.loss for point in points), max(point.loss for point in points)

    def place(seconds: float, loss: float) -> tuple[float, float]:
        across = (max(math.log(max(seconds, 1e-9)), first) - first) / max(last - first, 1e-9)
        up = (loss - low) / max(high - low, 1e-9)
        return _EDGE + across * (_WIDTH - 2 * _EDGE), _HEIGHT - _EDGE - up * (_HEIGHT - 2 * _EDGE)

    for name, spot in _labels(first, last, low, high, place).items():
        pen.text(spot, name, fill="#444444")
    pen.rectangle((_EDGE, _EDGE, _WIDTH - _EDGE, _HEIGHT - _EDGE), outline="#999999")
    for number, curve in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        pen.line([place(point.seconds, point.loss) for point in curve.points], fill=colour, width=3)
        pen.text((_WIDTH / 2, _EDGE + 12 + 18 * number), curve.name, fill=colour)
    image.save(path)


def _labels(
    first: float, last: float, low: float, high: float, place: Callable[[float, float], tuple[float, float]]
) -> Mapping[str, tuple[float, float]]:
    """Texts of the axes and where they stand."""
    found = {"bits per byte of the replies": (10.0, 20.0), "seconds of training": (_WIDTH / 2, _HEIGHT - 25.0)}
    for number in range(6):
        seconds = math.exp(first + (last - first) * number / 5)
        loss = low + (high - low) * number / 5
        found[f"{seconds:.3g}"] = (place(seconds, low)[0], _HEIGHT - _EDGE + 10.0)
        found[f"{loss:.3f}"] = (12.0, place(1.0, loss)[1] - 6)
    return found
