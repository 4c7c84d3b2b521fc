"""The command `models`: what can be talked to here, and what is worth fetching."""

from __future__ import annotations

import argparse
import json
from typing import Any

from chat_app.config.paths import Paths


def add_commands(commands: Any) -> None:
    """Tell the parser about this file's commands."""
    models = commands.add_parser("models", help="list the models on this computer, and a few recommended ones")
    models.add_argument("--json", action="store_true", help="as JSON")
    models.set_defaults(command=_models)


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
