"""The result of an evaluation: numbers only, so that it travels between processes. Measuring is in `evaluate`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        perplexity: exp(negative log-likelihood / learned tokens).
        bits_per_byte: negative log-likelihood in bits over the UTF-8 bytes of the learned turns.
        bleu, distinct_1, distinct_2, reward, penalty: of the likeliest replies, as in `metrics`; None where none was
            drawn.
        reply_words: how many words a reply has on average; None where none was drawn.
        conversations: how many were read.
        learned_tokens: over how many tokens the likelihood is taken.
        replies: how many replies were drawn.
        bleu_tokenizer: what sacrebleu took texts apart with, as `segmentation.choose_tokenizer` says; "" without
            replies.
    """

    perplexity: float
    bits_per_byte: float
    bleu: float | None
    distinct_1: float | None
    distinct_2: float | None
    reward: float | None
    penalty: float | None
    reply_words: float | None
    conversations: int
    learned_tokens: int
    replies: int
    bleu_tokenizer: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
