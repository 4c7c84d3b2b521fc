"""The command `models`: what can be talked to here, what is worth fetching, and the import of other formats."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from chat_app.config.paths import Paths


def add_commands(commands: Any) -> None:
    """Tell the parser about this file's commands."""
    models = commands.add_parser("models", help="list the models on this computer, and a few recommended ones")
    models.add_argument("--json", action="store_true", help="as JSON")
    models.set_defaults(command=_models)
    actions = models.add_subparsers(metavar="ACTION")
    imported = actions.add_parser(
        "import", help="read a model's pytorch_model.bin, .ckpt or .pt, and keep it as safetensors"
    )
    imported.add_argument("path", metavar="PATH", help="the file, or the folder that it is in")
    imported.add_argument("--name", default="", metavar="NAME", help="what to call it; default: as the file or folder")
    imported.add_argument(
        "--tokenizer", default="", metavar="M", help="a model or folder with its tokenizer, such as gpt2"
    )
    imported.set_defaults(command=_import)


def _import(options: argparse.Namespace) -> None:
    from chat_app.models.weight_import import import_model

    source = Path(options.path).expanduser()
    done = import_model(source, Paths.default(), name=options.name, tokenizer=options.tokenizer)
    print("\n".join(done.said))
    print(f"Its name is {done.name}: chat_app chat --model {done.name}")


def _models(options: argparse.Namespace) -> None:
    from chat_app.models.recommended import RECOMMENDED
    from chat_app.models.resolver import available

    here = available(Paths.default())
    if options.json:
        rows = [{"name": one.name, "kind": one.kind, "parameters": one.parameters} for one in here]
        recommended = [{"name": one.name, "size": one.size, "licence": one.licence} for one in RECOMMENDED]
        print(json.dumps({"models": rows, "recommended": recommended}, ensure_ascii=False))
        return
    print("On this computer:")
    for one in here:
        print(f"  {one.name:<40} {one.kind:<8} {one.parameters / 1e6:,.0f} million parameters")
    print("On the Hub:")
    for recommended_one in RECOMMENDED:
        print(f"  {recommended_one.name:<40} {recommended_one.size:<8} {recommended_one.good_at}")
