"""The app: `python app.py` opens the page and the HTTP API on one port. Also what a Hugging Face Space runs."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

from chat_app._version import __version__
from chat_app.errors import ChatAppError
from chat_app.server.flags import add_flags
from chat_app.server.run import serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the app until it is stopped, and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(
        prog="app.py", description="Chat with a GPT-2 dialogue model in your browser, and teach it from your files."
    )
    parser.add_argument("--version", action="version", version=f"chat_app {__version__}")
    add_flags(parser)
    try:
        return serve(parser.parse_args(arguments))
    except ChatAppError as error:
        print(f"chat_app: {error.sentence()}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
