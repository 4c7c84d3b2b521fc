"""Flags of the command line that are made from the settings, so that a default stands only there."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from chat_app.config import LoadConfig, SamplingConfig, TrainConfig, from_mapping
from chat_app.errors import DataError
from chat_app.recipe import read_recipe

Config = TypeVar("Config", SamplingConfig, LoadConfig, TrainConfig)


def add_settings(parser: argparse.ArgumentParser, kind: type, *, without: tuple[str, ...] = ()) -> None:
    """One flag for each field of a settings class, with its explanation."""
    group = parser.add_argument_group("settings")
    for one in fields(kind):
        if one.name in without:
            continue
        default = one.default if one.default is not MISSING else None
        shown = " ".join(default) if isinstance(default, tuple) else default
        about = f"{one.metadata['help']} (default: {shown})".replace("%", "%%")
        flag = "--" + one.name.replace("_", "-")
        if isinstance(default, tuple):
            group.add_argument(flag, dest=one.name, action="append", metavar="TEXT", help=about)
        else:
            group.add_argument(
                flag, dest=one.name, type=type(default), metavar=type(default).__name__.upper(), help=about
            )


def settings_of(options: argparse.Namespace, kind: type[Config], defaults: Mapping[str, Any] | None = None) -> Config:
    """The settings: what was typed, else the file given by --config, else `defaults`, else the class's own.

    Raises:
        SettingError: a value outside its limits, or an unknown name in the file.
    """
    values = dict(defaults or {})
    file = getattr(options, "config", None)
    if file is not None:
        values.update(read_recipe(Path(file))[0])
    for one in fields(kind):
        typed = getattr(options, one.name, None)
        if typed is not None:
            values[one.name] = tuple(typed) if isinstance(typed, list) else typed
    return from_mapping(kind, values)


def read_paths(names: list[str]) -> list[Path]:
    """Paths that exist.

    Raises:
        DataError: one does not.
    """
    paths = [Path(name) for name in names]
    for path in paths:
        if not path.exists():
            raise DataError(f"There is no file {path}.", advice="Check its name and its folder.")
    return paths
