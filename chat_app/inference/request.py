"""What the engine is asked to generate. Knows token ids, no text and no model."""

from __future__ import annotations

from dataclasses import dataclass

from chat_app.config.sampling import SamplingConfig
from chat_app.inference.backend import FinishReason
from chat_app.inference.logprobs import LogprobRecorder


@dataclass(frozen=True)
class Request:
    """A prompt to continue, and how.

    Attributes:
        ids: token ids of the prompt, at least one.
        types: as many token type ids, or None where the model has none.
        next_type: the type of every token of the reply, where there are types.
        sampling: how to draw tokens; the engine ignores its limit of new tokens, stop texts and remembered turns.
        end_ids: tokens that end the reply.
        suppressed_ids: tokens that are never sampled.
        max_new_tokens: the most tokens of the reply, an end token included.
        recorder: records the log probability of each token before the token is emitted, if they are requested.
    """

    ids: list[int]
    types: list[int] | None
    next_type: int | None
    sampling: SamplingConfig
    end_ids: frozenset[int]
    suppressed_ids: frozenset[int]
    max_new_tokens: int
    recorder: LogprobRecorder | None = None


@dataclass(frozen=True)
class Finish:
    """The last event of a sequence: why it ended."""

    reason: FinishReason
