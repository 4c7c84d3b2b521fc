"""What an engine is asked for, and how far it has come with it. Knows ids, no text and no model."""

from __future__ import annotations

import math
import queue
import threading
import time
from dataclasses import dataclass, field

from chat_app.config.sampling import SamplingConfig
from chat_app.errors import ChatAppError, DataError
from chat_app.inference.backend import FinishReason, QueuePosition
from chat_app.inference.kv_cache import Memory
from chat_app.inference.logprobs import LogprobRecorder
from chat_app.inference.model_runner import Piece
from chat_app.inference.sampling import Sampler

SECONDS_TO_GATHER = 0.05


@dataclass(frozen=True)
class Request:
    """What to continue, and how.

    Attributes:
        ids: token ids of the prompt, at least one.
        types: token type ids, as many, or None where the model has none.
        next_type: the type of every token of the reply, where there are types.
        sampling: how to draw; its limit of new tokens, stop texts and remembered turns are not the engine's business.
        end_ids: a token of these is the reply's last.
        suppressed_ids: tokens that never occur.
        max_new_tokens: the most tokens of the reply, its end mark included.
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


@dataclass(eq=False)
class Work:
    """A request under way. `memory` has the first of its `ids`; at least the last is always left to compute."""

    request: Request
    sampler: Sampler
    stopped: threading.Event
    deadline: float
    ids: list[int]
    types: list[int] | None
    left: bool = False
    place: int = 0
    memory: Memory | None = None
    out: queue.SimpleQueue[list[int] | QueuePosition | Finish | ChatAppError] = field(default_factory=queue.SimpleQueue)
    _gathered: list[int] = field(default_factory=list)
    _handed: float = -math.inf

    @property
    def is_cancelled(self) -> bool:
        return self.left or self.stopped.is_set()

    @property
    def written(self) -> int:
        return len(self.ids) - len(self.request.ids)

    @property
    def missing(self) -> int:
        """How many of its ids are to be computed; 1 while it writes."""
        return len(self.ids) - (self.memory.length if self.memory is not None else 0)

    def room(self, window: int) -> int:
        """How many tokens it can come to."""
        return min(len(self.request.ids) + self.request.max_new_tokens, window)

    def piece(self, most: int) -> Piece:
        """The next of its tokens to compute."""
        assert self.memory is not None, "begun"
        span = slice(self.memory.length, self.memory.length + most)
        types = self.types[span] if self.types is not None else None
        return Piece(self.ids[span], types, self.memory, span.stop >= len(self.ids))

    def add(self, token: int) -> None:
        """The model wrote a token."""
        self.ids.append(token)
        if self.types is not None:
            self.types.append(self.request.next_type or 0)

    def hand(self, token: int) -> None:
        """Let who reads have a token: the first at once, later ones together with those of the next moments. To be
        woken for each would take the processor from the next step."""
        self._gathered.append(token)
        if time.monotonic() - self._handed >= SECONDS_TO_GATHER:
            self._hand_all()

    def tell(self, item: QueuePosition | Finish | ChatAppError) -> None:
        """Let who reads know, after all that was written."""
        if self._gathered:
            self._hand_all()
        self.out.put(item)

    def _hand_all(self) -> None:
        self.out.put(self._gathered)
        self._gathered, self._handed = [], time.monotonic()

    def finish_reason(self, window: int) -> FinishReason | None:
        """Why the reply has ended: by its end token, its limit of new tokens, or the window; None: it goes on."""
        if self.written and self.ids[-1] in self.request.end_ids:
            return "end"
        if self.written >= self.request.max_new_tokens:
            return "length"
        return "window" if len(self.ids) >= window else None


def begin(
    request: Request,
    window: int,
    vocabulary: int,
    stopped: threading.Event | None = None,
    deadline: float = math.inf,
) -> Work:
    """A request of which nothing is computed yet.

    Raises:
        DataError: the prompt is empty, has unknown tokens, or leaves no room in the window.
    """
    if not 0 < len(request.ids) < window:
        what = "fills the whole window" if request.ids else "is empty"
        raise DataError(f"The prompt {what} ({len(request.ids)} of {window} tokens).")
    known = [*request.ids, *(request.types or []), request.next_type or 0]
    if min(known) < 0 or max(known) >= vocabulary:
        raise DataError(f"The prompt has tokens that the model does not know (it knows {vocabulary}).")
    sampler = Sampler(request.sampling, request.end_ids, request.suppressed_ids, len(request.ids), request.recorder)
    types = list(request.types) if request.types is not None else None
    return Work(request, sampler, stopped or threading.Event(), deadline, list(request.ids), types)
