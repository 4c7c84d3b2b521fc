"""What the page, the HTTP API and the command line know of a model that replies, wherever that model runs.

`ReplyBackend` is the interface: `LoadedModel` implements it with an engine in this process, `WorkerModel` with one in a
child process, `RemoteModel` with another server. The values that pass through it (a request, and the deltas, queue
positions and end of its reply) hold text and numbers only, so that they can be sent to another process; nothing here
imports torch.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation

FinishReason = Literal["end", "stop", "length", "window", "cancelled", "time"]
"""Why a reply ended. "end": the model wrote its end-of-turn token. "stop": a stop text appeared. "length": the limit of
new tokens is reached. "window": the context window is full. "cancelled": the caller cancelled the reply. "time": the
time limit ran out."""


@dataclass(frozen=True)
class ReplyRequest:
    """The reply that is asked for.

    Attributes:
        conversation: ends with a turn of the user.
        sampling: how tokens are drawn, the limit of new tokens and the stop texts.
        prefix: text with which the reply must begin.
        logprobs: None for none; otherwise every token comes with its log probability, and with this many of the most
            likely alternatives.
    """

    conversation: Conversation
    sampling: SamplingConfig
    prefix: str = ""
    logprobs: int | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """A token and its log probability under the model.

    Attributes:
        token: its text; a replacement character where the token is only a part of a character.
        logprob: natural logarithm of its probability, before temperature, penalties and the other restrictions.
        bytes: its text in UTF-8, which may be a part of a character; None where it is not known.
        top: the most likely tokens at that position, the best first; their own `top` is empty.
    """

    token: str
    logprob: float
    bytes: tuple[int, ...] | None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class QueuePosition:
    """The request waits for a slot in the batch; `position` 1 is the next to be admitted."""

    position: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of a reply.

    Attributes:
        text: what is appended; never empty, and never a part of a character, a special token or a stop text.
        tokens: the tokens that make up the text; None where log probabilities were not requested, or not of this text.
    """

    text: str
    tokens: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True)
class ReplyEnd:
    """A finished reply.

    Attributes:
        text: the whole reply, a prefix that was given included; equal to its deltas joined.
        reason: why it ended.
        reply_tokens: tokens that the model wrote, without its end-of-turn token.
        prompt_tokens: tokens of the prompt, a prefix that was given included.
        window: the most tokens of both; 0 where it is not known.
        seconds: from the request to the end.
        first_token_seconds: from the request to the first token.
        dropped_turns: how many of the oldest turns did not fit into the window.
        cut_tokens: how many tokens were cut from the beginning of a turn that does not fit into the window by itself.
        quoted: the taught question whose reply was quoted from a list of answers; None where the model wrote the reply.
    """

    text: str
    reason: FinishReason
    reply_tokens: int
    prompt_tokens: int
    window: int
    seconds: float
    first_token_seconds: float
    dropped_turns: int = 0
    cut_tokens: int = 0
    quoted: str | None = None

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the reply for each second, the prefill of the prompt included."""
        return self.reply_tokens / self.seconds if self.seconds > 0 else 0.0


ReplyEvent: TypeAlias = TextDelta | QueuePosition | ReplyEnd


@dataclass(frozen=True)
class ModelDescription:
    """What there is to say about a model.

    Attributes:
        name: the name by which it is found again.
        kind: where it comes from: "starter", "run", "folder", "hub", "gguf", or "remote" for one on another server.
        is_ready: False while another server that runs it was not reached yet, or while it is loaded again.
        window: the most tokens of a prompt and its reply; 0 where it is not known.
        host: the other server's host and port; empty for a model on this computer.
        parameters: how many weights it has; None where it is not known, as are the format, precision and device.
        format: the name of its prompt format.
        format_reason: why that format was chosen; `is_format_certain` is False for a guess.
        precision: "float32", "bfloat16", "float16", "8-bit" or "4-bit".
        precision_reason: why that precision is used, in a few words.
        device: "cpu", "cuda", "cuda:1" or "mps".
        memory_bytes: the measured size of its tensors; 0 where it is not known.
        problem: why it cannot reply any more; empty while it can, or soon will.
    """

    name: str
    kind: str
    is_ready: bool
    window: int
    host: str = ""
    parameters: int | None = None
    format: str | None = None
    format_reason: str = ""
    is_format_certain: bool = True
    precision: str | None = None
    device: str | None = None
    memory_bytes: int = 0
    problem: str = ""
    precision_reason: str = ""

    @property
    def is_reloading(self) -> bool:
        """Whether it is a model of this app whose process has died, and is being loaded again."""
        return not self.is_ready and not self.host and not self.problem


class ReplyBackend(Protocol):
    """A model that replies. All of it may be used from any thread, for many replies at the same time."""

    @property
    def name(self) -> str:
        """The name by which the model was asked for; empty while a remote one is not known yet."""

    @property
    def description(self) -> ModelDescription:
        """What is known about the model now."""

    def connect(self) -> None:
        """Make sure that the model can reply; a model in this process always can.

        Raises:
            ChatAppError: it cannot be reached, or is not there.
        """

    def stream(
        self, request: ReplyRequest, cancel_event: threading.Event | None = None
    ) -> Generator[ReplyEvent, None, None]:
        """The assistant's next turn: queue positions while other requests come first, text deltas, then one ReplyEnd.

        Closing the generator cancels the reply and frees its slot in the batch.

        Args:
            cancel_event: set from any thread, it ends the reply within a step; the ReplyEnd still comes.

        Raises:
            DataError, SettingError: the conversation does not end with the user, leaves no room for a reply, or asks
                for what this backend cannot do.
            BusyError: too many requests are waiting.
            ChatAppError: the model failed, was unloaded, or cannot be reached.
        """

    def close(self) -> None:
        """End all replies under way with an error, and free what the model holds."""


def stream_reply(
    backend: ReplyBackend, request: ReplyRequest, cancel_event: threading.Event | None = None
) -> Generator[TextDelta | ReplyEnd, None, None]:
    """As `ReplyBackend.stream`, without the queue positions."""
    with contextlib.closing(backend.stream(request, cancel_event)) as events:
        for event in events:
            if not isinstance(event, QueuePosition):
                yield event


def reply(backend: ReplyBackend, conversation: Conversation, sampling: SamplingConfig, prefix: str = "") -> ReplyEnd:
    """The assistant's whole next turn.

    Raises:
        As ReplyBackend.stream.
    """
    *_, end = stream_reply(backend, ReplyRequest(conversation, sampling, prefix))
    assert isinstance(end, ReplyEnd)
    return end
