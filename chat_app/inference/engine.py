"""Token streams from one loaded model, for several people at once.

One thread owns the model. Before each step it lets waiting requests in and those that have ended out; a step computes
the next token of every running reply together, and a piece of the prompts that are still being read, small enough that
nobody's reply halts for long. Knows ids, no text.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import torch

from chat_app.errors import BusyError, ChatAppError
from chat_app.inference.backend import QueuePosition
from chat_app.inference.gpt2.model_runner import GPT2Forward
from chat_app.inference.gpt2.weights import is_plain_gpt2
from chat_app.inference.model_runner import Forward, TransformersForward
from chat_app.inference.prefix_cache import Computed, Prefixes
from chat_app.inference.request import Finish, Request, Work, begin
from chat_app.inference.thread_tuner import Pace

LOGGER = logging.getLogger(__name__)
PIECE_BESIDE = 96  # Tokens of prompts read in one step beside running replies, which wait for it.
TIME_LIMIT = 600.0


def forward_of(model: Any, window: int, paged: bool | None = None) -> Forward:
    """The forward pass of a model on its own weights, which stay as they are.

    Args:
        paged: as GPT2Forward; it prepares for many replies.

    Raises:
        ModelError: the model has no key/value cache.
    """
    return GPT2Forward(model, window, paged=paged) if is_plain_gpt2(model) else TransformersForward(model)


def generate_tokens(model: Any, request: Request, window: int) -> list[int]:
    """The whole reply of a model that has no engine, such as one that is being trained; in this thread.

    Raises:
        DataError: the prompt is empty or leaves no room in the window.
        ChatAppError: the model's scores are no numbers.
    """
    was_training = model.training
    model.eval()
    try:
        forward = forward_of(model, window, paged=False)
        work = begin(request, window, forward.vocabulary)
        work.memory = forward.new_memory()
        while work.finish_reason(window) is None:
            piece = work.piece(forward.prompt_piece)
            scores = forward.step([piece])
            if piece.is_last:
                work.add(work.sampler.draw(scores[0], work.ids))
    finally:
        model.train(was_training)
    return work.ids[len(request.ids) :]


class Engine:
    """Streams tokens of one model.

    Args:
        forward: the model's forward pass, which the engine owns from now on, or a model of transformers.
        window: the most tokens a prompt and its reply may have together.
        most_waiting: how many requests may wait for their turn; more are refused.
        most_active: how many are written at once.
        memory_tokens: how many tokens all that are written at once may come to, and what is kept besides; at least a
            window. Default: what `most_active` can need.
        kept_tokens: how many tokens of finished requests are remembered; default four windows.
        threads: numbers of processor threads to choose from for a step; default torch's number.
        time_limit: seconds after which a reply ends where it is, waiting included.
        clock: tells the time.

    Raises:
        ModelError: the model has no key/value cache.
    """

    def __init__(
        self,
        forward: Any,
        window: int,
        most_waiting: int = 64,
        most_active: int = 16,
        memory_tokens: int | None = None,
        kept_tokens: int | None = None,
        threads: tuple[int, ...] = (),
        time_limit: float = TIME_LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ):
        if isinstance(forward, torch.nn.Module):
            forward = forward_of(forward.eval(), window)
        self.window = window
        self.vocabulary: int = forward.vocabulary
        self.memory_bytes: int = forward.memory_bytes
        self._forward: Forward | None = forward
        kept = 4 * window if kept_tokens is None else kept_tokens
        self._prefixes = Prefixes(kept)
        self._memory_tokens = max(window, most_active * window + kept if memory_tokens is None else memory_tokens)
        self._pace = Pace(threads or (0,))
        self._most_waiting, self._most_active = most_waiting, most_active
        self._time_limit, self._clock = time_limit, clock
        self._changed = threading.Condition()  # Guards the three below.
        self._waiting: deque[Work] = deque()
        self._active: list[Work] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def stream(self, request: Request, cancel_event: threading.Event | None = None) -> Generator[int, None, None]:
        """The reply's tokens, the end mark included if the model wrote one. Closing the iterator frees the request.

        Args:
            cancel_event: set from any thread, it ends the stream within one step.

        Raises:
            DataError: the prompt is empty, has unknown tokens, or leaves no room in the window.
            BusyError: too many requests wait already, or this one waited for too long.
            ChatAppError: this request failed, or the engine was closed.
        """
        with contextlib.closing(self.stream_events(request, cancel_event)) as events:
            for event in events:
                if isinstance(event, int):
                    yield event

    def stream_events(
        self, request: Request, cancel_event: threading.Event | None = None
    ) -> Generator[int | QueuePosition | Finish, None, None]:
        """As `stream`, with the request's positions in the queue before the first token, and a Finish as last event."""
        work = self._admit(request, cancel_event or threading.Event())
        try:
            while True:
                item = work.out.get()
                if isinstance(item, ChatAppError):
                    raise item
                if isinstance(item, list):
                    yield from item
                    continue
                yield item
                if isinstance(item, Finish):
                    return
        finally:
            self._leave(work)

    def close(self) -> None:
        """End all streams with an error, stop the thread and let go of the model."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until no request is under way. False if some still are after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._active and not self._waiting, timeout)

    @property
    def requests(self) -> int:
        """How many requests are under way or wait."""
        with self._changed:
            return len(self._active) + len(self._waiting)

    def _admit(self, request: Request, stopped: threading.Event) -> Work:
        work = begin(request, self.window, self.vocabulary, stopped, self._clock() + self._time_limit)
        with self._changed:
            if self._closing:
                raise ChatAppError("The model is no longer loaded.", advice="Ask again.")
            if len(self._waiting) >= self._most_waiting:
                raise BusyError("Too many people are waiting for replies.", advice="Try again in a moment.")
            self._waiting.append(work)
            self._changed.notify_all()
        return work

    def _leave(self, work: Work) -> None:
        """The reader is gone: give its place free at once if it waits, else before its next step."""
        work.left = True
        with self._changed:
            if work in self._waiting:
                self._waiting.remove(work)
            self._changed.notify_all()

    def _run(self) -> None:
        """The thread: step after step, until closed."""
        while self._gather():
            self._step()
        with self._changed:
            rest = [*self._active, *self._waiting]
            self._active, self._waiting = [], deque()
            self._forward = None
            self._prefixes.clear()
            self._changed.notify_all()
        for work in rest:
            work.memory = None
            work.tell(ChatAppError("The model was unloaded before the reply was finished.", advice="Ask again."))

    def _gather(self) -> bool:
        """Let those in who wait for longest, as far as there is memory; sleep while there is nothing to do.

        False: close.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._active or self._waiting)
            now = self._clock()
            for work in [one for one in self._waiting if one.is_cancelled or now >= one.deadline]:
                self._waiting.remove(work)
                busy = BusyError("The wait for a reply was too long.", advice="Try again in a moment.")
                work.tell(Finish("cancelled") if work.is_cancelled else busy)
            used = sum(work.room(self.window) for work in self._active)
            while self._waiting and len(self._active) < self._most_active:
                used += self._waiting[0].room(self.window)
                if used > self._memory_tokens:
                    break
                self._active.append(self._waiting.popleft())
            for place, work in enumerate(self._waiting, start=1):
                if work.place != place:
                    work.place = place
                    work.tell(QueuePosition(place))
            self._changed.notify_all()
            return not self._closing

    def _step(self) -> None:
        """One step for all that are active. Whatever goes wrong concerns only the request that caused it."""
        assert self._forward is not None, "the thread is not closed yet"
        now = self._clock()
        for work in tuple(self._active):
            if work.is_cancelled or now >= work.deadline:
                self._retire(work, Finish("cancelled" if work.is_cancelled else "time"))
            elif work.memory is None:
                self._safely(work, partial(self._begin, work))
        shares = self._shares()
        if len(shares) > 1 and self._forward.is_joint:
            try:
                return self._compute(shares)
            except Exception:  # Somebody's piece: each by itself, those that fail are told.
                LOGGER.info("a step failed; its requests are tried one by one", exc_info=True)
                self._prefixes.clear()  # If memory ran out, this is what can be done.
        for work, share in shares:
            self._safely(work, partial(self._compute, [(work, share)]))
        return None

    def _begin(self, work: Work) -> None:
        """Give a request the memory of what was computed before, or a new one."""
        assert self._forward is not None, "the thread is not closed yet"
        running = [Computed(one.ids, one.types, one.memory) for one in self._active if one.memory is not None]
        known = self._prefixes.take(work.ids, work.types, running)
        work.memory = self._forward.new_memory() if known is None else known
        self._prefixes.shrink(self._memory_tokens - sum(one.room(self.window) for one in self._active))

    def _shares(self) -> list[tuple[Work, int]]:
        """How many tokens of each request the next step computes: one of each reply, and equal shares of prompts."""
        assert self._forward is not None, "the thread is not closed yet"
        writing = [(work, 1) for work in self._active if work.missing == 1]
        reading = sorted((work for work in self._active if work.missing > 1), key=lambda work: work.missing)
        left = PIECE_BESIDE if writing else self._forward.prompt_piece
        shares = []
        for position, work in enumerate(reading):
            share = min(work.missing, -(-left // (len(reading) - position)))
            if share:
                shares.append((work, share))
            left -= share
        return [*writing, *shares]

    def _compute(self, shares: list[tuple[Work, int]]) -> None:
        """A forward pass over shares of requests, and the next token of those whose last one it computed."""
        assert self._forward is not None, "the thread is not closed yet"
        pieces = [work.piece(share) for work, share in shares]
        tokens = sum(share for _, share in shares)
        threads = self._pace.choose(tokens)
        if threads:
            torch.set_num_threads(threads)  # Holds for the thread that calls it.
        started = time.perf_counter()
        scores = self._forward.step(pieces)
        self._pace.took(threads, tokens, time.perf_counter() - started)
        if threads:
            torch.set_num_threads(1)  # Drawing is over before several have met.
        last = [work for (work, _), piece in zip(shares, pieces, strict=True) if piece.is_last]
        for work, row in zip(last, scores, strict=True):
            self._safely(work, partial(self._write, work, row))

    def _write(self, work: Work, scores: torch.Tensor) -> None:
        """Draw the next token of one request."""
        token = work.sampler.draw(scores, work.ids)
        work.add(token)
        work.hand(token)
        reason = work.finish_reason(self.window)
        if reason is not None:
            self._retire(work, Finish(reason))

    def _safely(self, work: Work, action: Callable[[], None]) -> None:
        """Do something for one request; if it fails, the request ends and is told why."""
        try:
            action()
        except Exception as error:  # The thread's edge: it goes on for the others.
            if not isinstance(error, ChatAppError):
                LOGGER.exception("a request failed")
            self._retire(work, _explained(error))

    def _retire(self, work: Work, outcome: Finish | ChatAppError) -> None:
        if isinstance(outcome, Finish) and work.memory is not None:
            self._prefixes.keep(Computed(work.ids, work.types, work.memory))
        work.memory = None
        with self._changed:
            self._active.remove(work)
            self._changed.notify_all()
        work.tell(outcome)


def _explained(error: Exception) -> ChatAppError:
    """What a request is told that failed."""
    if isinstance(error, ChatAppError):
        return error.with_traceback(None)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return ChatAppError("The memory ran out.", advice="Use a smaller model, or shorter conversations.")
    return ChatAppError(f"The model failed ({type(error).__name__}: {error}).")
