"""The commands that take a model away: export, push."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chat_app.config.paths import Paths
from chat_app.errors import SettingError

if TYPE_CHECKING:
    from chat_app.models.export import As
    from chat_app.runs.run import Run

VARIABLE = "HF_TOKEN"


def add_commands(commands: Any) -> None:
    """Tell the parser about this file's commands."""
    export = commands.add_parser("export", help="write a model as a zip that transformers loads")
    _add_model(export)
    export.add_argument("--out", required=True, metavar="FILE.zip", help="the zip to write")
    export.set_defaults(command=_export)

    push = commands.add_parser("push", help="put a model on the Hugging Face Hub")
    _add_model(push)
    push.add_argument("--name", required=True, metavar="OWNER/NAME", help="what to call it there")
    push.add_argument("--public", action="store_true", help="everybody sees it; without this only you do")
    push.set_defaults(command=_push)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="M", help="starter, a run or its folder, or a model's folder")
    parser.add_argument("--licence", default="", metavar="TEXT", help="as the Hub spells it, such as mit")
    parser.add_argument("--adapter", action="store_true", help="only what LoRA has added, without its base model")


def _export(options: argparse.Namespace) -> None:
    from chat_app.models.export import export

    with _source(options) as (source, run, form):
        print(export(source, Path(options.out), run=run, licence=options.licence, as_=form))


def _push(options: argparse.Namespace) -> None:
    from chat_app.models.export import push

    with _source(options) as (source, run, form):
        token = _token()
        print(push(source, options.name, token, not options.public, run=run, licence=options.licence, as_=form))


@contextmanager
def _source(options: argparse.Namespace) -> Iterator[tuple[Path, Run | None, As]]:
    """The folder to take away, its run and its form. An adapter that is wanted whole is merged for the while."""
    from chat_app.models.export import find_export_source
    from chat_app.models.lora_files import is_adapter
    from chat_app.models.lora_merge import merge

    paths = Paths.default()
    form: As = "adapter" if options.adapter else "merged"
    source, run = find_export_source(options.model, paths, form)
    if form == "adapter" or not is_adapter(source):
        yield source, run, form
        return
    with tempfile.TemporaryDirectory() as folder:
        merge(options.model, Path(folder) / "model", paths)
        yield Path(folder) / "model", run, form


def _token() -> str:
    """The token from the environment, or typed unseen. Never an argument: other users of the computer see those.

    Raises:
        SettingError: there is neither.
    """
    if given := os.environ.get(VARIABLE):
        return given
    if not sys.stdin.isatty():
        raise SettingError("token", "There is no token.", advice=f"Put it into the variable {VARIABLE}.")
    return getpass.getpass("Token of the Hub, with the right to write (it is not kept): ")
