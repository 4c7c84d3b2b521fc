"""Log probabilities of generated tokens: recorded while sampling, then aligned with the text that the tokens become.

They cost nothing where they are not requested: only a request with a `LogprobRecorder` computes them.
"""

from __future__ import annotations

import json
from collections import deque
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from chat_app.inference.backend import TokenLogprob
from chat_app.tokenization.chat_tokenizer import ChatTokenizer

MIN_LOGPROB = -9999.0  # What OpenAI writes for a probability of zero; JSON has no infinity.
Recorded = tuple[float, list[tuple[int, float]]]
"""The log probability of a sampled token, and the most likely tokens of its position with theirs."""


class LogprobRecorder:
    """Records the log probabilities of one reply's tokens, in their order. One thread adds, another takes.

    Args:
        top: how many of the most likely tokens are recorded besides the sampled one.
    """

    def __init__(self, top: int):
        self._top = top
        self._recorded: deque[Recorded] = deque()

    def add(self, logits: npt.NDArray[np.float32], token: int) -> None:
        """Record a sampled token. `logits` are the model's own, [vocabulary], before any restriction."""
        logprobs = torch.from_numpy(logits).log_softmax(-1)
        best = torch.topk(logprobs, min(self._top, len(logprobs)))
        top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        self._recorded.append((float(logprobs[token]), list(top)))

    def take(self) -> Recorded:
        """Remove and return the record of the next token."""
        return self._recorded.popleft()


class LogprobAligner:
    """Collects the tokens, with their log probabilities, that belong to the next text delta.

    A token whose text is never shown, such as one of a stop text, is never returned.

    Args:
        tokenizer: a fast transformers tokenizer.
        recorder: of the reply.
    """

    def __init__(self, tokenizer: ChatTokenizer, recorder: LogprobRecorder):
        self._recorder = recorder
        self._decoder = TokenDecoder(tokenizer)
        self._pending: list[TokenLogprob] = []

    def add(self, token: int) -> None:
        """Add the next token of the reply."""
        self._pending.append(self._decoder.describe(token, self._recorder.take()))

    def flush(self) -> tuple[TokenLogprob, ...]:
        """Return the tokens that were added since the last time: those of the text that is shown now."""
        pending, self._pending = self._pending, []
        return tuple(pending)


class TokenDecoder:
    """Decodes single tokens to text and to UTF-8 bytes; in a reply only several of them may make up a character.

    Args:
        tokenizer: a fast transformers tokenizer.
    """

    def __init__(self, tokenizer: ChatTokenizer):
        self._tokenizer = tokenizer
        backend = tokenizer.backend_tokenizer
        self._added = {token: added.content for token, added in backend.get_added_tokens_decoder().items()}
        decoder = json.dumps(json.loads(backend.to_str())["decoder"])
        self._byte_letters = _byte_letters() if '"ByteLevel"' in decoder else None
        self._marks_spaces = "\\u2581" in decoder or "▁" in decoder or '"Metaspace"' in decoder

    def describe(self, token: int, recorded: Recorded) -> TokenLogprob:
        """A sampled token and the alternatives at its position, with their texts."""
        logprob, top = recorded
        return self._describe(token, logprob, tuple(self._describe(other, value) for other, value in top))

    def _describe(self, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        raw = self.to_bytes(token)
        return TokenLogprob(raw.decode("utf-8", "replace"), max(logprob, MIN_LOGPROB), tuple(raw), top)

    def to_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that a token stands for."""
        if token in self._added:
            return str(self._added[token]).encode()
        text: str | None = self._tokenizer.convert_ids_to_tokens(token)
        if text is None:  # The model's vocabulary is padded beyond the tokenizer's.
            return b""
        if self._byte_letters is not None:
            return bytes(self._byte_letters[letter] for letter in text if letter in self._byte_letters)
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            return bytes([int(text[3:5], 16)])
        return (text.replace("▁", " ") if self._marks_spaces else text).encode()


@lru_cache(maxsize=1)
def _byte_letters() -> dict[str, int]:
    """Letter -> byte, in the byte-level vocabulary of GPT-2 and its like.

    Source: Radford et al. 2019, encoder.py: printable bytes stand for themselves, the rest for letters from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(rest)}
