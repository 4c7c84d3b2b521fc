"""Renders chat templates. A template is a program from a checkpoint: it may loop for ever, or fill the memory.

So it runs in a child process with limits, which is killed where it exceeds them. The templates of our own formats, and
the one that most DialoGPT checkpoints have, are rendered here: they are known to end.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from chat_app.errors import FormatError
from chat_app.tokenization.chat_formats import FORMATS
from chat_app.tokenization.chat_tokenizer import ChatTokenizer

MOST_SECONDS = 5.0  # For one conversation. Real templates take less than a millisecond.
_START_SECONDS = 120.0  # On a slow disk, for the imports.
_MOST_TEMPLATE = 200_000  # Characters. The longest of well-known models have 20,000.
_MOST_CHARACTERS, _MOST_OF_MESSAGE = 100_000, 100
_MEMORY_BYTES = 512 << 20
_KNOWN = frozenset(
    {one.chat_template for one in FORMATS.values()}
    | {"{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}"}
)
# What a program needs of the environment. Keys and tokens of services are in others.
_ENVIRONMENT = (
    "PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "HOME",
    "USERPROFILE",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "TMPDIR",
    "LANG",
)
_OTHER = "Choose another format for this model."


def render_template(tokenizer: ChatTokenizer, messages: Sequence[Mapping[str, str]], is_open: bool = False) -> str:
    """The text of a conversation in the layout of a tokenizer's chat template.

    Args:
        messages: each with "role" and "content".
        is_open: whether it ends where the assistant's reply begins.

    Raises:
        FormatError: there is no template, or it fails, does not end, or writes far too much.
    """
    template = _choose_template(tokenizer)
    if template in _KNOWN:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=is_open))
    special_tokens = dict(getattr(tokenizer, "special_tokens_map", {}))
    renderer = getattr(tokenizer, "template_renderer", None)
    if renderer is None or not renderer.renders(template, special_tokens):
        renderer = TemplateRenderer(template, special_tokens)
        tokenizer.template_renderer = renderer  # It lives as long as the tokenizer, and so does its process.
    return renderer.render(messages, is_open)


def _choose_template(tokenizer: ChatTokenizer) -> str:
    found = getattr(tokenizer, "chat_template", None)
    if isinstance(found, Mapping):  # Some have several by name.
        found = found.get("default")
    if not found:
        raise FormatError("This tokenizer has no chat template.", advice="Choose another format, such as 'roles'.")
    if not isinstance(found, str) or len(found) > _MOST_TEMPLATE:
        raise FormatError("The model's chat template is no text, or far too long.", advice=_OTHER)
    return found


class TemplateRenderer:
    """A chat template with the process that renders it. Threads may share it.

    Args:
        template: in Jinja.
        special_tokens: name, such as "eos_token" -> spelling, which templates use.
    """

    def __init__(self, template: str, special_tokens: Mapping[str, Any]):
        self._template, self._special_tokens = template, dict(special_tokens)
        self._one_at_a_time = threading.Lock()
        self._child: _Child | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has a process of its own."""
        return TemplateRenderer, (self._template, self._special_tokens)

    def renders(self, template: str, special_tokens: Mapping[str, Any]) -> bool:
        """Whether it is the renderer of this template with these tokens."""
        return (template, dict(special_tokens)) == (self._template, self._special_tokens)

    def render(self, messages: Sequence[Mapping[str, str]], is_open: bool) -> str:
        """The text of a conversation.

        Raises:
            FormatError: as `render_template`.
        """
        most = _MOST_CHARACTERS + _MOST_OF_MESSAGE * len(messages)
        asked = {"messages": list(messages), "is_open": is_open, "most_characters": most}
        with self._one_at_a_time:
            if self._child is None:
                self._child = self._start()
            answer = self._child.ask(asked, MOST_SECONDS)
            if answer is None:
                was_late, self._child = self._child.was_late, None
                raise FormatError(
                    f"The model's chat template did not end within {MOST_SECONDS:.0f} seconds and was stopped."
                    if was_late
                    else "The model's chat template made its process crash.",
                    advice=_OTHER,
                )
        if answer.get("is_long"):
            raise FormatError("The model's chat template writes far too much.", advice=_OTHER)
        if "text" not in answer:
            raise FormatError(
                f"The model's chat template refuses this conversation ({answer.get('error')}).",
                advice="Remove the system text, or choose another format.",
            )
        return str(answer["text"])

    def _start(self) -> _Child:
        child = _Child()
        about = {
            "template": self._template,
            "special_tokens": self._special_tokens,
            "memory_bytes": _MEMORY_BYTES,
        }
        if child.ask(about, _START_SECONDS) is None:
            raise FormatError("The process that renders chat templates does not start.", advice=_OTHER)
        return child


class _Child:
    """A process of `template_child`. It ends with this object, or with this process."""

    def __init__(self) -> None:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONUTF8": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("template_child.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            encoding="utf-8",
        )
        self._late = threading.Event()
        weakref.finalize(self, _end, self._process)

    @property
    def was_late(self) -> bool:
        """Whether it was killed because it took too long."""
        return self._late.is_set()

    def ask(self, message: Mapping[str, Any], seconds: float) -> dict[str, Any] | None:
        """Send a message and wait for the answer. None if the process ended instead, or took longer and was killed."""
        timer = threading.Timer(seconds, _give_up, (self._process, self._late))
        timer.daemon = True
        timer.start()
        try:
            stdin, stdout = self._pipes()
            stdin.write(json.dumps(message, default=str) + "\n")  # An AddedToken is its spelling.
            stdin.flush()
            answer = json.loads(stdout.readline() or "null")
        except (OSError, ValueError):
            answer = None
        finally:
            timer.cancel()
        if self.was_late or not isinstance(answer, dict):
            _end(self._process)
            return None
        return answer

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def _give_up(process: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    process.kill()


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and close the pipes to it."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # What was still to be written to it.
                pipe.close()
