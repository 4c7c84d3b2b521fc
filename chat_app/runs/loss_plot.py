"""The loss plot of a training: an SVG, made without a drawing library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 60, 16, 34, 44
MOST_POINTS = 600
_SERIES = (("train_loss", "training", "#3b6ea5"), ("valid_loss", "validation", "#c2571a"))
Point = tuple[float, float]
T = TypeVar("T")


def curves_svg(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Training and validation loss over the steps, or nothing where there are fewer than two points.

    Args:
        metrics: the lines of a run, oldest first.
    """
    series = [(_points(metrics, name), label, colour) for name, label, colour in _SERIES]
    points = [point for one, _, _ in series for point in one]
    if len(points) < 2:
        return ""
    steps = _ticks(0, max(x for x, _ in points))
    losses = _ticks(min(0.0, *(y for _, y in points)), max(y for _, y in points))
    parts = [_grid(steps, losses)]
    for position, (line, label, colour) in enumerate(series):
        if line:
            parts.append(_line(line, colour, steps, losses))
            parts.append(_legend(position, label, colour))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="Loss over the steps of the training" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _points(metrics: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    """(step, loss), thinned."""
    return thinned(
        [(float(line["step"]), float(line[name])) for line in metrics if _is_number(line.get(name), line.get("step"))]
    )


def thinned(points: Sequence[T]) -> list[T]:
    """At most MOST_POINTS of them, evenly, the newest always."""
    stride = max(-(-len(points) // MOST_POINTS), 1)
    return list(points[::-1][::stride][::-1])


def _is_number(*values: Any) -> bool:
    return all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers from at most `low` to at least `high`."""
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 5))
    size = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 5)
    first = math.floor(low / size)
    return [size * number for number in range(first, max(math.ceil(high / size), first + 1) + 1)]


def _x(step: float, steps: Sequence[float]) -> float:
    return LEFT + (step - steps[0]) / (steps[-1] - steps[0]) * (WIDTH - LEFT - RIGHT)


def _y(loss: float, losses: Sequence[float]) -> float:
    return HEIGHT - BOTTOM - (loss - losses[0]) / (losses[-1] - losses[0]) * (HEIGHT - TOP - BOTTOM)


def _grid(steps: Sequence[float], losses: Sequence[float]) -> str:
    """Lines and numbers of both axes."""
    bottom = HEIGHT - BOTTOM
    across = [
        f'<path d="M{LEFT} {_y(loss, losses):.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>'
        f'<text x="{LEFT - 8}" y="{_y(loss, losses) + 4:.1f}" text-anchor="end" fill="#444444">{loss:.4g}</text>'
        for loss in losses
    ]
    along = [
        f'<text x="{_x(step, steps):.1f}" y="{bottom + 18}" text-anchor="middle" fill="#444444">{step:,.10g}</text>'
        for step in steps
    ]
    names = (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle" fill="#444444">steps</text>'
        f'<text x="{LEFT - 8}" y="20" text-anchor="end" fill="#444444">loss</text>'
    )
    return "\n".join([*across, *along, names])


def _line(points: Sequence[Point], colour: str, steps: Sequence[float], losses: Sequence[float]) -> str:
    path = " ".join(f"{_x(x, steps):.1f},{_y(y, losses):.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-linejoin="round"/>'


def _legend(position: int, label: str, colour: str) -> str:
    x = LEFT + 16 + 120 * position
    return (
        f'<path d="M{x} 16h22" stroke="{colour}" stroke-width="3"/>'
        f'<text x="{x + 28}" y="20" fill="#222222">{label}</text>'
    )
