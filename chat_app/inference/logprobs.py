"""How likely a model found what it writes: what is noted of each token that is drawn, and the same told in text.

Costs nothing where nobody asks: only a request with `Notes` has its tokens looked at.
"""

from __future__ import annotations

import json
from collections import deque
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from chat_app.inference.outputs import TokenLogprob

LEAST = -9999.0  # What OpenAI writes for a probability of nothing; JSON has no infinity.
Noted = tuple[float, list[tuple[int, float]]]


class Notes:
    """What was noted of the tokens of one reply, in their order. One thread adds, another takes.

    Args:
        most: how many of the likeliest tokens are noted besides the one that was drawn.
    """

    def __init__(self, most: int):
        self._most = most
        self._noted: deque[Noted] = deque()

    def add(self, scores: npt.NDArray[np.float32], token: int) -> None:
        """A token was drawn. `scores` are the model's own, [vocabulary]."""
        logprobs = torch.from_numpy(scores).log_softmax(-1)
        best = torch.topk(logprobs, min(self._most, len(logprobs)))
        top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        self._noted.append((float(logprobs[token]), list(top)))

    def take(self) -> Noted:
        """The logprob of the next token, and the likeliest tokens of its place with theirs."""
        return self._noted.popleft()


class TokenTexts:
    """Tokens one by one, as text and as bytes, which in a reply only make sense together.

    Args:
        tokenizer: a fast transformers tokenizer.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        backend = tokenizer.backend_tokenizer
        self._added = {number: added.content for number, added in backend.get_added_tokens_decoder().items()}
        decoder = json.dumps(json.loads(backend.to_str())["decoder"])
        self._bytes_of = _bytes_of_letters() if '"ByteLevel"' in decoder else None
        self._has_spaces_marked = "\\u2581" in decoder or "▁" in decoder or '"Metaspace"' in decoder

    def told(self, token: int, noted: Noted) -> TokenLogprob:
        """A token that was drawn, and what was noted of it."""
        logprob, top = noted
        return self._one(token, logprob, tuple(self._one(number, value) for number, value in top))

    def _one(self, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        raw = self.bytes_of(token)
        return TokenLogprob(raw.decode("utf-8", "replace"), max(logprob, LEAST), tuple(raw), top)

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for in UTF-8."""
        if token in self._added:
            return str(self._added[token]).encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece is None:  # The model has a row more than the tokenizer has tokens.
            return b""
        if self._bytes_of is not None:
            return bytes(self._bytes_of[letter] for letter in piece if letter in self._bytes_of)
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])
        return (piece.replace("▁", " ") if self._has_spaces_marked else piece).encode()


@lru_cache(maxsize=1)
def _bytes_of_letters() -> dict[str, int]:
    """The letters that stand for bytes in the vocabulary of GPT-2 and its like.

    Source: Radford et al. 2019, encoder.py: printable bytes stand for themselves, the rest for letters from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [number for number in range(256) if number not in set(printable)]
    return {chr(number): number for number in printable} | {chr(256 + at): number for at, number in enumerate(rest)}
