"""What a reply consists of while it is written and when it has ended. Knows no model and no tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reason = Literal["end", "stop", "length", "window", "cancelled", "time"]


@dataclass(frozen=True)
class TokenLogprob:
    """A token and how likely the model found it.

    Attributes:
        token: its text; a replacement character where it is only a part of one.
        logprob: the natural logarithm of its probability, before temperature, penalties and what else restricts.
        bytes: its text in UTF-8, which may be a part of a character; None where that is not known.
        top: the likeliest tokens of that place, the best first; their own `top` is empty.
    """

    token: str
    logprob: float
    bytes: tuple[int, ...] | None
    top: tuple[TokenLogprob, ...] = ()


class Scored(str):
    """A piece of a reply that knows its tokens, for those who asked how likely they were."""

    tokens: tuple[TokenLogprob, ...] = ()

    @classmethod
    def of(cls, text: str, tokens: list[TokenLogprob]) -> Scored:
        """A text, which may be empty, and the tokens that it consists of."""
        scored = cls(text)
        scored.tokens = tuple(tokens)
        return scored


@dataclass(frozen=True)
class ReplyEnd:
    """A finished reply.

    Attributes:
        text: all of it, the forced beginning included.
        reason: "end": the model ended it; "stop": a stop text came; "length": the longest reply is reached;
            "window": the model can see no more; "cancelled": somebody stopped it; "time": it took too long.
        reply_tokens: tokens that the model wrote, without its end mark.
        prompt_tokens: tokens that it read, the forced beginning included.
        window: the most tokens of both; 0 where that is not known.
        seconds: from the request to the end.
        first_token_seconds: from the request to the first token.
        dropped_turns: how many of the oldest turns did not fit.
        cut_tokens: how many tokens the beginning of a turn lost because it did not fit alone.
    """

    text: str
    reason: Reason
    reply_tokens: int
    prompt_tokens: int
    window: int
    seconds: float
    first_token_seconds: float
    dropped_turns: int = 0
    cut_tokens: int = 0

    @property
    def tokens_per_second(self) -> float:
        """How fast the reply was written, reading the prompt included."""
        return self.reply_tokens / self.seconds if self.seconds > 0 else 0.0
