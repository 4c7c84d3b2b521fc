"""Dataclass fields with limits and a help text, their validation, and conversion from and to mappings.

Command-line flags and page controls are generated from these fields, so each default is written once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, field, fields
from typing import Any, TypeVar

from chat_app.errors import SettingError


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    step: float | None = None,
    choices: tuple[str, ...] | None = None,
    label: str | None = None,
    advanced: bool = True,
) -> Any:
    """A dataclass field with limits and a help text in its metadata.

    Args:
        default: the default value; its type is the type of the setting.
        help: one sentence for people.
        low, high: the smallest and the largest value allowed, both included.
        step: the step of a slider.
        choices: the only values allowed, for a text.
        label: the name on the page; by default the field's name.
        advanced: False for the few settings that the page shows without unfolding anything.
    """
    about = {
        "help": help,
        "low": low,
        "high": high,
        "step": step,
        "choices": choices,
        "label": label,
        "advanced": advanced,
    }
    return field(default=default, metadata=about)


def check(settings: Any) -> None:
    """Validate every field of a settings object. Numbers are converted to the field's type.

    Raises:
        SettingError: a value has the wrong type or is outside its limits; the error names the field, the value and
            what is allowed.
    """
    for one in fields(settings):
        value, about = getattr(settings, one.name), one.metadata
        kind = type(one.default)
        if kind in (int, float):
            value = _number(one.name, value, kind)
            object.__setattr__(settings, one.name, value)
            low, high = about.get("low"), about.get("high")
            if (low is not None and value < low) or (high is not None and value > high):
                limits = f"between {low:g} and {high:g}" if high is not None else f"{low:g} or more"
                raise SettingError(one.name, f"{value} is out of range.", advice=f"Give a number {limits}.")
        elif kind is bool and not isinstance(value, bool):
            raise SettingError(one.name, f"{value!r} is neither true nor false.")
        elif kind is str and not isinstance(value, str):
            raise SettingError(one.name, f"{value!r} is not text.")
        choices = about.get("choices")
        if choices and value not in choices:
            raise SettingError(one.name, f"'{value}' is not allowed.", advice=f"Choose one of {', '.join(choices)}.")


def _number(name: str, value: Any, kind: type) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SettingError(name, f"{value!r} is not a number.", advice="Give a finite number.")
    if kind is int and int(value) != value:
        raise SettingError(name, f"{value} is not a whole number.")
    number: int | float = kind(value)
    return number


AUTOMATIC = "automatic"


Config = TypeVar("Config")


def from_mapping(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """A settings object from names and values, such as those of a YAML file.

    Raises:
        SettingError: there is no setting of a name, or a value is outside its limits.
    """
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise SettingError(name, "There is no such setting.", advice=f"Known are {', '.join(sorted(names))}.")
    return kind(**values)


def to_mapping(settings: Any) -> dict[str, Any]:
    """The names and values of a settings object, ready for JSON: tuples become lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}
