"""The settings of a run as they were used: what was left open in them, a zero or "automatic", was decided later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from chat_app.config.fields import AUTOMATIC
from chat_app.config.training import TrainConfig
from chat_app.errors import RunError
from chat_app.runs.run import Run

# What the value that leaves a setting open means, where it is not known yet what was used.
_OPEN: Mapping[str, tuple[Any, str]] = {
    "learning_rate": (0, AUTOMATIC),
    "dropout": (-1, "the model's own"),
    "window": (0, "the model's own"),
    "max_steps": (0, "after the epochs"),
    "max_turns": (0, "all"),
    "patience": (0, "never stops early"),
    "evaluate_every": (0, "once an epoch"),
    "save_every": (0, "at each evaluation"),
    "log_every": (0, AUTOMATIC),
    "threads": (0, "all"),
}
_FACTS = ("format", "window", "precision", "device")


def read_used_settings(run: Run) -> dict[str, Any]:
    """Each setting with the value that was used, or with words where that is still open.

    Raises:
        RunError: the run cannot be read.
    """
    config, about = run.config(), run.about()
    values = {one.name: getattr(config, one.name) for one in fields(TrainConfig)}
    plan, used = about.get("plan") or {}, about.get("used") or {}
    known = {name: about[name] for name in _FACTS if name in about}
    known |= {name: plan[name] for name in ("method", "batch_size", "accumulation", "optimizer") if name in plan}
    known |= {name: value for name, value in used.items() if name in values}
    if "learning_rate" in used:
        known["rate_factor"] = 1.0  # It is part of the rate already.
    for name, (open_value, words) in _OPEN.items():
        if name not in known and values[name] == open_value:
            known[name] = words
    return {**values, **known}


def try_used_settings(run: Run) -> dict[str, Any]:
    """The same; nothing for a run that cannot be read."""
    try:
        return read_used_settings(run)
    except RunError:
        return {}
