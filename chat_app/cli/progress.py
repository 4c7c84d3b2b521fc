"""How work on conversations shows itself in a terminal."""

from __future__ import annotations

import sys

from tqdm import tqdm


class Counting:
    """A bar for conversations that are read, checked or written. Only where somebody can see it move."""

    def __init__(self, what: str, total: int | None = None):
        self._bar = tqdm(
            desc=what, total=total, unit=" conversations", file=sys.stderr, leave=False, delay=1,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def told(self, conversations: int, problems: int = 0) -> None:
        """So many are done."""
        self._bar.update(conversations - self._bar.n)
