"""The program of the child process that renders chat templates. `template_renderer` starts it and sets its limits.

It reads lines of JSON from its input and writes one line of JSON for each. The first has the template, the spellings of
the special tokens, and how many bytes it may take; the others each have the messages of a conversation. It ends with
its input. It is run by its path, so that of this project it imports nothing.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Render until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides.
    sys.path[:] = [one for one in sys.path if Path(one or ".").resolve() != Path(__file__).resolve().parent]
    from transformers.utils.chat_template_utils import render_jinja_template

    first = json.loads(sys.stdin.readline())
    _limit_memory(first["memory_bytes"])
    _answer({})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            rendered: Any = render_jinja_template(
                [asked["messages"]],
                chat_template=first["template"],
                add_generation_prompt=asked["is_open"],
                **first["special_tokens"],
            )
            text = rendered[0][0]  # Of the first conversation; beside the texts it gives what was generated in each.
            _answer({"text": text} if len(text) <= asked["most_characters"] else {"is_long": True})
        except Exception as error:  # A template is a program from a checkpoint and may raise anything.
            _answer({"error": " ".join(str(error).split())[:200] or type(error).__name__})


def _answer(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def _limit_memory(more: int) -> None:
    """Let this process take only so many bytes more than it has, and write no files, where the system knows limits."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
