"""A run that exists already is trained as it was prepared. What else was asked for is refused, and not ignored."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

from chat_app.cli.arguments import build_source
from chat_app.config.training import TrainConfig
from chat_app.data.source import format_value
from chat_app.errors import RunError
from chat_app.runs.run import Run
from chat_app.training.prepare import digest_files
from chat_app.training.recipe import FILE, read_besides, read_recipe

_WITHOUT_EFFECT = ("rehearse",)  # A run that goes on keeps the plan that it began with.


def refuse_other_settings(options: argparse.Namespace, run: Run, may_change: Collection[str] = ()) -> None:
    """Compare what the flags and the file of --config ask for with what a run was prepared with.

    Args:
        may_change: the settings that may differ.

    Raises:
        RunError: something differs; it says what, and what to do.
    """
    differences = [*_compare_settings(options, run, may_change), *_compare_data(options, run)]
    if not differences:
        return
    listed = ", ".join("--" + name.replace("_", "-") for name in may_change)
    more = f"leave these out and change only {listed}" if may_change else "leave these out to train it as it is"
    raise RunError(
        f"The run {run.id} was prepared otherwise: {'; '.join(differences)}.",
        advice=f"To train with them, give another folder with --run; or {more}.",
    )


def _compare_settings(options: argparse.Namespace, run: Run, may_change: Collection[str]) -> list[str]:
    asked = dict(read_recipe(Path(options.config))[0]) if options.config else {}
    for one in fields(TrainConfig):
        if (typed := getattr(options, one.name, None)) is not None:
            asked[one.name] = typed
    config = run.config()
    return [
        f"--{name.replace('_', '-')} {format_value(value)} (the run: {format_value(getattr(config, name, None))})"
        for name, value in asked.items()
        if name not in (*may_change, *_WITHOUT_EFFECT) and value != getattr(config, name, None)
    ]


def _compare_data(options: argparse.Namespace, run: Run) -> list[str]:
    about, recipe = run.about(), run.folder / FILE
    _, files, valid = read_recipe(recipe) if recipe.is_file() else ({}, [], None)
    besides = read_besides(recipe) if recipe.is_file() else {}
    found = []
    if options.data:
        if _resolve(options.data) != _resolve(files):
            names = ", ".join(map(str, about.get("files") or ["its own"]))
            found.append(f"--data {' '.join(options.data)} (the run: {names})")
        elif about.get("source_digest", now := digest_files(map(Path, options.data))) != now:
            found.append(f"--data {' '.join(options.data)} (the content has changed since)")
    if options.valid and _resolve([options.valid]) != _resolve([valid] if valid else []):
        found.append(f"--valid {options.valid} (the run: {valid or 'a share of its data'})")
    questions: list[Any] = about.get("questions") or []
    if options.question and options.question != questions:
        found.append(f"--question (the run has {len(questions)} others)")
    if (options.data or options.hub) and not found:
        asked = build_source(options, options.data or []).to_settings()
        known = {name: value for name, value in besides.items() if name != "question"}
        found += [
            f"--{name.replace('_', '-')} {asked.get(name)} (the run: {known.get(name)})"
            for name in sorted(asked.keys() | known.keys())
            if asked.get(name) != known.get(name)
        ]
    return found


def _resolve(files: Collection[str]) -> list[Path]:
    return [Path(file).resolve() for file in files]
