"""Detokenization of a reply while it is generated: tokens in, text out, and the search for stop texts.

Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

_REPLACEMENT = "\ufffd"  # What decoding gives for bytes that are no character, or not yet a whole one.


class Detokenizer(Protocol):
    """What is needed of a tokenizer."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        """The text of tokens."""


class ReplyText:
    """Builds the text of a reply token by token.

    The deltas joined are exactly `text`. They contain no half characters, no special tokens and no stop text.

    Args:
        tokenizer: decodes.
        stop: texts before which the reply ends.
        prefix_ids: tokens that the reply starts with.
    """

    def __init__(self, tokenizer: Detokenizer, stop: Sequence[str], prefix_ids: list[int]):
        self.text = ""
        self.is_stopped = False
        self._tokenizer = tokenizer
        self._stop = stop
        self._ids = list(prefix_ids)
        # ids[context:read] are decoded already. A token's text can depend on the token before it, hence the context.
        self._context, self._read = 0, len(prefix_ids)
        self._held = ""  # May be the beginning of a stop text.
        self._space = ""  # White space that belongs to the reply only if more text follows.

    def begin(self) -> str:
        """The text of the prefix."""
        return self._append(self._decode(self._ids))

    def add(self, token: int) -> str:
        """Append a token. Returns the text that is certain now, which may be empty."""
        self._ids.append(token)
        before = self._decode(self._ids[self._context : self._read])
        after = self._decode(self._ids[self._context :])
        if after.endswith(_REPLACEMENT) or len(after) <= len(before):
            return ""  # Half a character, or no text at all.
        self._context, self._read = self._read, len(self._ids)
        return self._append(self._cut_at_stop(after[len(before) :].replace(_REPLACEMENT, "")))

    def finish(self) -> str:
        """The reply has ended: the text that was held back and is no stop text. An unfinished character is dropped."""
        if self.is_stopped:
            return ""
        before = self._decode(self._ids[self._context : self._read])
        rest = self._decode(self._ids[self._context :])[len(before) :].replace(_REPLACEMENT, "")
        rest = self._cut_at_stop(rest)
        if not self.is_stopped:
            rest, self._held = rest + self._held, ""
        return self._append(rest)

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _cut_at_stop(self, more: str) -> str:
        """The text that certainly stands before any stop text; the rest is held back."""
        pending = self._held + more
        found = [(start + len(stop), start) for stop in self._stop if (start := pending.find(stop)) >= 0]
        if found:  # The stop text that is complete first counts, however the text was cut into tokens.
            self.is_stopped, self._held = True, ""
            return pending[: min(found)[1]]
        begun = max((_overlap(pending, stop) for stop in self._stop), default=0)
        self._held = pending[len(pending) - begun :]
        return pending[: len(pending) - begun]

    def _append(self, more: str) -> str:
        """Append to `text`, without white space at its beginning and, as far as is known, at its end."""
        pending = self._space + more
        if not self.text:
            pending = pending.lstrip()
        shown = pending.rstrip()
        self._space = pending[len(shown) :]
        self.text += shown
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
