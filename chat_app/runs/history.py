"""The history of a run: its curves and its sample replies, a line for each point."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chat_app.runs.files import read_lines, write_text

_NUMBERS = (
    *("epoch", "time", "train_loss", "valid_loss", "valid_perplexity", "learning_rate", "grad_norm"),
    "tokens_per_second",
)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, oldest first. What is no number where one belongs is left out."""
    return [
        {name: value for name, value in line.items() if name not in _NUMBERS or _is_number(value)}
        for line in read_lines(path)
        if _is_step(line.get("step"))
    ]


def count_damaged_lines(path: Path) -> int:
    """How many lines of metrics.jsonl have something else where a number belongs."""
    return sum(
        not _is_step(line.get("step")) or not all(_is_number(line[name]) for name in _NUMBERS if name in line)
        for line in read_lines(path)
    )


def read_samples(path: Path) -> list[dict[str, Any]]:
    """The lines of samples.jsonl, oldest first, without those that are no replies of a step."""
    return [
        line
        for line in read_lines(path)
        if _is_step(line.get("step")) and all(isinstance(line.get(name, ""), str) for name in ("prompt", "reply"))
    ]


def forget_after(path: Path, lines: Sequence[dict[str, Any]], step: int) -> None:
    """Write a history again without what came after a step."""
    kept = [line for line in lines if line["step"] <= step]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
