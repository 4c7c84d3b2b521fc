"""The progress of work on conversations in a terminal."""

from __future__ import annotations

import sys

from tqdm import tqdm

from chat_app.system.progress import Progress


class ConversationBar:
    """A bar for conversations that are read, checked or written; hidden if standard error is no terminal."""

    def __init__(self, what: str, total: int | None = None):
        self._bar = tqdm(
            desc=what, total=total, unit=" conversations", file=sys.stderr, leave=False, delay=1,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip

    def __enter__(self) -> ConversationBar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def update(self, progress: Progress) -> None:
        """The ProgressCallback: show how many conversations are done."""
        self._bar.update(progress.done - self._bar.n)
