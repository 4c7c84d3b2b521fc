"""config.json of a run folder: the settings and the facts beside them, kept twice, and checked when they are read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chat_app.errors import RunError
from chat_app.runs.files import hold, read_json, write_json

NAME, COPY = "config.json", "config.copy.json"
_LOCK_SECONDS = 10.0
_KINDS: Mapping[type | tuple[type, ...], str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    (int, float): "a number",
    list: "a list",
    dict: "an object",
}
_FACTS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(
        ("title", "by", "format", "precision", "device", "from_nothing", "after", "resumed_from", "source_digest"), str
    ),
    **dict.fromkeys(("train_conversations", "valid_conversations", "test_conversations"), int),
    **dict.fromkeys(("train_texts", "valid_texts", "vocabulary", "window", "cut_turns", "rows"), int),
    **dict.fromkeys(("files", "repairs", "reading", "questions"), list),
    **dict.fromkeys(("plan", "used", "digests"), dict),
    "created": (int, float),
    "queued": bool,
}


class SettingsFile:
    """The settings of a run on disk.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def read(self) -> dict[str, Any]:
        """The settings, and the facts under "about". A file that is missing or torn is restored from its copy.

        Raises:
            RunError: both are damaged, or a fact is of the wrong kind.
        """
        values = read_json(self._folder / NAME)
        if not isinstance(values, dict):
            values = read_json(self._folder / COPY)
            if not isinstance(values, dict):
                raise RunError(f"There is no run in {self._folder}, or its settings are damaged.")
            with contextlib.suppress(OSError):  # Where it cannot be restored, the copy is read the next time too.
                write_json(self._folder / NAME, values)
        return {**values, "about": self._check_facts(values.get("about", {}))}

    def write(self, values: Mapping[str, Any]) -> None:
        """Write both files, one after the other: at any moment one of them is whole."""
        write_json(self._folder / NAME, values)
        write_json(self._folder / COPY, values)

    def update(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Read, change and write under a lock, so that of two processes' changes neither is lost."""
        with hold(self._folder / ".config.lock", "The settings of this run are being changed.", _LOCK_SECONDS):
            self.write(change(self.read()))

    def _check_facts(self, facts: Any) -> dict[str, Any]:
        if not isinstance(facts, dict):
            raise self._damaged("about", "an object")
        for name, kind in _FACTS.items():
            value = facts.get(name)
            if value is None:
                continue
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise self._damaged(f"'{name}'", _KINDS[kind])
        return {name: value for name, value in facts.items() if value is not None}

    def _damaged(self, name: str, kind: str) -> RunError:
        return RunError(
            f"The settings of the run {self._folder.name} are damaged: {name} in {NAME} is not {kind}.",
            advice=f"Correct it, or delete {NAME} to take its copy.",
        )
