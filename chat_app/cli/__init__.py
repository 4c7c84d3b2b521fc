"""The command line: python -m chat_app COMMAND. Results go to standard output, everything else to standard error.

Exit code 0: done; 2: a mistake of the person, one clear line; 1: a failure; 128 and more: ended by the signal of that
number less 128, which is 130 for Ctrl-C and 143 for SIGTERM.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from chat_app._version import __version__
from chat_app.cli import chat, data, evaluate, export, models, train
from chat_app.cli.stop_signals import FIRST_SIGNAL_CODE
from chat_app.errors import ChatAppError, PeerProcessError
from chat_app.system.disk_errors import explain_disk_error

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    # The libraries' own bars, one for each file, would hide the lines of a command.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # It warns of what it could do faster elsewhere.
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options) or 0)
    except PeerProcessError:
        return 1
    except ChatAppError as error:
        print(f"chat_app: {error.sentence()}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("chat_app: stopped.", file=sys.stderr)
        return FIRST_SIGNAL_CODE + signal.SIGINT
    except BrokenPipeError:
        # The reader has closed the pipe, so the interpreter must not flush standard output at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        explained = explain_disk_error(error)
        if explained is None:
            raise
        print(f"chat_app: {explained.sentence()}", file=sys.stderr)
        return explained.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chat_app",
        description="Talk to a GPT-2 dialogue model, teach it from your conversations, talk to the result.",
    )
    parser.add_argument("--version", action="version", version=f"chat_app {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in (chat, evaluate, train, data, models, export):
        group.add_commands(commands)
    return parser
