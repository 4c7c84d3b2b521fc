"""A sequence: a request that the engine is computing, with its tokens, its KV cache and the events for its reader.

Knows token ids, no text and no model.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TypeAlias

from chat_app.errors import ChatAppError, DataError
from chat_app.inference.backend import FinishReason, QueuePosition
from chat_app.inference.kv_cache import KVCache
from chat_app.inference.model_runner import Chunk
from chat_app.inference.request import Finish, Request
from chat_app.inference.sampling import Sampler

EMIT_INTERVAL_SECONDS = 0.05

Event: TypeAlias = list[int] | QueuePosition | Finish | ChatAppError
"""What a reader receives: tokens, its position in the queue, the end, or what went wrong."""


@dataclass(eq=False)
class Sequence:
    """A request that waits or runs. The KV cache holds the first of its `ids`; at least the last is left to compute.

    Attributes:
        is_abandoned: its reader is gone.
        queue_position: the position that its reader was told last.
        ids, types: of the prompt and of the reply so far.
        events: what its reader receives.
    """

    request: Request
    sampler: Sampler
    cancel_event: threading.Event
    deadline: float
    ids: list[int]
    types: list[int] | None
    is_abandoned: bool = False
    queue_position: int = 0
    kv_cache: KVCache | None = None
    events: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)
    _pending: list[int] = field(default_factory=list)
    _last_flush: float = -math.inf

    @property
    def is_cancelled(self) -> bool:
        return self.is_abandoned or self.cancel_event.is_set()

    @property
    def num_output_tokens(self) -> int:
        return len(self.ids) - len(self.request.ids)

    @property
    def num_uncomputed_tokens(self) -> int:
        """How many of its ids are not in the KV cache; 1 while it decodes."""
        return len(self.ids) - (self.kv_cache.length if self.kv_cache is not None else 0)

    def max_total_tokens(self, window: int) -> int:
        """How many tokens it can grow to."""
        return min(len(self.request.ids) + self.request.max_new_tokens, window)

    def next_chunk(self, size: int) -> Chunk:
        """The next tokens to compute, at most `size`."""
        assert self.kv_cache is not None, "admitted"
        span = slice(self.kv_cache.length, self.kv_cache.length + size)
        types = self.types[span] if self.types is not None else None
        return Chunk(self.ids[span], types, self.kv_cache, span.stop >= len(self.ids))

    def append_token(self, token: int) -> None:
        """Append a sampled token."""
        self.ids.append(token)
        if self.types is not None:
            self.types.append(self.request.next_type or 0)

    def emit_token(self, token: int) -> None:
        """Emit a token to the reader. The first is sent at once; later ones are sent together after 50 ms, because
        waking the reader for every token would take processor time from the next step."""
        self._pending.append(token)
        if time.monotonic() - self._last_flush >= EMIT_INTERVAL_SECONDS:
            self._flush()

    def emit(self, event: QueuePosition | Finish | ChatAppError) -> None:
        """Emit an event to the reader, after all tokens so far."""
        if self._pending:
            self._flush()
        self.events.put(event)

    def _flush(self) -> None:
        self.events.put(self._pending)
        self._pending, self._last_flush = [], time.monotonic()

    def finish_reason(self, window: int) -> FinishReason | None:
        """Why the reply has ended: by an end token, the limit of new tokens, or the window; None: it goes on."""
        if self.num_output_tokens and self.ids[-1] in self.request.end_ids:
            return "end"
        if self.num_output_tokens >= self.request.max_new_tokens:
            return "length"
        return "window" if len(self.ids) >= window else None


def start_sequence(
    request: Request,
    window: int,
    vocabulary: int,
    cancel_event: threading.Event | None = None,
    deadline: float = math.inf,
) -> Sequence:
    """A sequence of which nothing is computed yet.

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
    return Sequence(request, sampler, cancel_event or threading.Event(), deadline, list(request.ids), types)
