"""The server's command-line flags and the rules that follow from them."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from chat_app.config.paths import STARTER
from chat_app.config.server import LOOPBACK, QUOTE_MODES, ServerRules
from chat_app.errors import SettingError

if TYPE_CHECKING:
    pass

if TYPE_CHECKING:
    from chat_app.inference.remote.backend import RemoteModel


DEFAULT_PORT = 7860
MAX_UPLOAD_MB = 10**6
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - on a Space only, where nothing else can reach it.
_ORIGIN = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?/?")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the server's flags to a parser."""
    host = ANY_ADDRESS if os.environ.get("SPACE_ID") else LOOPBACK[0]
    parser.add_argument("--host", default=host, metavar="H", help=f"the address to listen on (default: {host})")
    parser.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        metavar="P",
        help=f"the port to listen on; 0 takes a free one (default: {DEFAULT_PORT})",
    )
    parser.add_argument(
        "--model",
        metavar="M",
        help=f"the model to begin with: starter, a run, a folder, or a name on the Hub (default: {STARTER}); "
        "with --engine its name there (default: the first it lists)",
    )
    parser.add_argument(
        "--engine",
        metavar="URL",
        help="let another server answer, one that speaks OpenAI's chat completions, as in http://127.0.0.1:8000/v1; "
        "a key for it goes into the environment's CHAT_APP_ENGINE_KEY",
    )
    parser.add_argument("--share", action="store_true", help="make a public link; wants --auth-file")
    parser.add_argument(
        "--auth-file", type=Path, metavar="F", help="who may come in: a file with one name:password a line"
    )
    parser.add_argument(
        "--max-upload",
        type=float,
        default=0,
        metavar="MB",
        help="the largest file that can be uploaded, in MB (default: 5000, and 200 where others may come)",
    )
    parser.add_argument(
        "--answers",
        choices=QUOTE_MODES,
        default="off",
        help="quote replies from the list that the model was taught: 'sure' where a question of it was surely meant, "
        "'only' to say otherwise that it is not known (default: off)",
    )
    parser.add_argument("--no-training", action="store_true", help="nobody can train here")
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="URL",
        help="another address of this server, or a page that may call it, as in https://chat.example.org",
    )


def parse_rules(options: argparse.Namespace) -> ServerRules:
    """The server's rules from parsed flags.

    Raises:
        SettingError: a value that cannot be, or a server open to others without an auth file.
    """
    if not 0 <= options.port <= 65535:
        raise SettingError("--port", f"{options.port} is no port.", advice="Give a number from 0 to 65535.")
    for origin in options.allow_origin:
        if _ORIGIN.fullmatch(origin) is None:
            raise SettingError("--allow-origin", f"'{origin}' is no address.", advice="Write https://chat.example.org.")
    rules = ServerRules(
        host=options.host.strip("[]"),
        port=options.port,
        auth_file=options.auth_file,
        training=not options.no_training,
        origins=tuple(origin.rstrip("/") for origin in options.allow_origin),
        share=options.share,
        answers=options.answers,
        upload_bytes=_parse_megabytes(options.max_upload),
    )
    if rules.auth_file is None and rules.host not in LOOPBACK and not rules.on_space:
        raise SettingError(
            "--host",
            f"Listening on {rules.host} lets in whoever reaches this computer: strangers could chat and train.",
            advice="Give --auth-file with a name:password a line, or leave --host out.",
        )
    if rules.auth_file is None and rules.share:
        raise SettingError(
            "--share",
            "A public link lets everybody in who has it.",
            advice="Give --auth-file with a name:password a line.",
        )
    return rules


def make_remote(options: argparse.Namespace) -> RemoteModel | None:
    """The model behind --engine.

    Raises:
        SettingError: that is no address.
    """
    if options.engine is None:
        return None
    from chat_app.inference.remote.backend import RemoteModel, check_address

    return RemoteModel(check_address(options.engine), options.model or "")


def _parse_megabytes(megabytes: float) -> int:
    if not 0 <= megabytes <= MAX_UPLOAD_MB:
        raise SettingError("--max-upload", f"{megabytes:g} is no size.", advice="Give megabytes, such as 500.")
    return round(megabytes * 10**6)
