"""Flags of the command line that are made from the settings, so that a default stands only there."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from chat_app.config.fields import from_mapping
from chat_app.errors import DataError, SettingError

if TYPE_CHECKING:
    from chat_app.data.source import DataSource

Config = TypeVar("Config")


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


def build_settings(
    options: argparse.Namespace, kind: type[Config], defaults: Mapping[str, Any] | None = None
) -> Config:
    """The settings: what was typed, else the file given by --config, else `defaults`, else the class's own.

    Raises:
        SettingError: a value outside its limits, or an unknown name in the file.
    """
    values = dict(defaults or {})
    file = getattr(options, "config", None)
    if file is not None:
        from chat_app.training.recipe import read_besides, read_recipe

        values.update(read_recipe(Path(file))[0])
        for name in read_besides(Path(file)):
            if not hasattr(options, name):
                raise SettingError(name, "This command has no such setting.", advice=f"Remove it from {file}.")
    for one in fields(kind):  # type: ignore[arg-type]
        typed = getattr(options, one.name, None)
        if typed is not None:
            values[one.name] = tuple(typed) if isinstance(typed, list) else typed
    return from_mapping(kind, values)


def add_reading(parser: argparse.ArgumentParser) -> None:
    """The flags that say how files of conversations are to be understood, and which repairs are applied."""
    from chat_app.data.quality import REPAIRS
    from chat_app.data.readers import ReadingOptions

    parser.add_argument(
        "--hub", metavar="NAME", help="a data set of the Hub instead of files: owner/name, or e.g. dailydialog"
    )
    parser.add_argument("--hub-config", default="", metavar="NAME", help="the configuration of that data set")
    parser.add_argument("--hub-split", default="", metavar="NAME", help="only this part of it, such as train")
    parser.add_argument(
        "--repair",
        nargs="+",
        default=[],
        choices=sorted(REPAIRS),
        metavar="NAME",
        help=f"mend the conversations before they are used: {', '.join(sorted(REPAIRS))}",
    )
    add_settings(parser, ReadingOptions)


def build_source(options: argparse.Namespace, files: list[str]) -> DataSource:
    """What a command is to read.

    Raises:
        DataError: neither files nor a data set of the Hub, or a file that does not exist.
        SettingError: an option that cannot be.
    """
    from chat_app.data.quality import REPAIRS
    from chat_app.data.readers import ReadingOptions
    from chat_app.data.source import DataSource, HubData

    hub = HubData(options.hub, options.hub_config, options.hub_split) if options.hub else None
    if hub is None and not files:
        raise SettingError("data", "There is nothing to read.", advice="Give a file, or --hub NAME.")
    for name in options.repair:
        if name not in REPAIRS:
            raise SettingError("repair", f"There is no repair '{name}'.", advice=f"Known are {', '.join(REPAIRS)}.")
    understood = ReadingOptions(
        **{one.name: given for one in fields(ReadingOptions) if (given := getattr(options, one.name, None)) is not None}
    )
    return DataSource(tuple(read_paths(files)), (), hub, understood, frozenset(options.repair))


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
