"""The engine: streams tokens of one model for many requests at the same time, by continuous batching.

One thread owns the model. Before every step its scheduler admits waiting requests and removes finished ones. A step
then decodes the next token of every running sequence and computes a chunk of the prompts that are still in prefill,
small enough that no running reply pauses for long (chunked prefill). Knows token ids, no text.
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
from chat_app.inference.gpt2.model_runner import GPT2ModelRunner
from chat_app.inference.gpt2.weights import is_plain_gpt2
from chat_app.inference.model_runner import ModelRunner, TransformersModelRunner
from chat_app.inference.prefix_cache import CachedPrefix, PrefixCache
from chat_app.inference.request import Finish, Request
from chat_app.inference.sequence import Sequence, start_sequence
from chat_app.inference.thread_tuner import ThreadTuner
from chat_app.system.sent_errors import explain

LOGGER = logging.getLogger(__name__)
PREFILL_CHUNK_WHILE_DECODING = 96  # Tokens of prompts in a step that also decodes: running replies wait for them.
TIME_LIMIT = 600.0


def make_model_runner(model: Any, window: int, paged: bool | None = None) -> ModelRunner:
    """A runner on a model's own weights, which stay as they are.

    Args:
        paged: as GPT2ModelRunner; it prepares for many sequences.

    Raises:
        ModelError: the model has no KV cache.
    """
    if is_plain_gpt2(model):
        return GPT2ModelRunner(model, window, paged=paged)
    return TransformersModelRunner(model, None if paged is False else window)


def generate_tokens(model: Any, request: Request, window: int) -> list[int]:
    """The whole reply of a model without an engine, such as one that is being trained; in the calling thread.

    Raises:
        DataError: the prompt is empty or leaves no room in the window.
        ChatAppError: the model's logits are not finite.
    """
    was_training = model.training
    model.eval()
    try:
        runner = make_model_runner(model, window, paged=False)
        sequence = start_sequence(request, window, runner.vocabulary)
        sequence.kv_cache = runner.new_kv_cache()
        while sequence.finish_reason(window) is None:
            chunk = sequence.next_chunk(runner.prefill_chunk_size)
            logits = runner.step([chunk])
            if chunk.needs_logits:
                sequence.append_token(sequence.sampler.draw(logits[0], sequence.ids))
    finally:
        model.train(was_training)
    return sequence.ids[len(request.ids) :]


class Engine:
    """Streams tokens of one model.

    Args:
        runner: the model's runner, which the engine owns from now on, or a model of transformers.
        window: the most tokens a prompt and its reply may have together.
        max_waiting: how many requests may wait to be admitted; more are refused.
        max_running: how many sequences run at once.
        kv_cache_tokens: how many tokens the KV caches of all running sequences and of the prefix cache may hold
            together; at least a window. Default: what `max_running` sequences can need.
        prefix_cache_tokens: how many tokens of finished sequences the prefix cache keeps; default four windows.
        threads: numbers of processor threads to choose from for a step; default torch's number.
        time_limit: seconds after which a reply ends where it is, its time in the queue included.
        clock: tells the time.

    Raises:
        ModelError: the model has no KV cache.
    """

    def __init__(
        self,
        runner: Any,
        window: int,
        max_waiting: int = 64,
        max_running: int = 16,
        kv_cache_tokens: int | None = None,
        prefix_cache_tokens: int | None = None,
        threads: tuple[int, ...] = (),
        time_limit: float = TIME_LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ):
        if isinstance(runner, torch.nn.Module):
            runner = make_model_runner(runner.eval(), window)
        self.window = window
        self.vocabulary: int = runner.vocabulary
        self.memory_bytes: int = runner.memory_bytes
        self._runner: ModelRunner | None = runner
        kept = 4 * window if prefix_cache_tokens is None else prefix_cache_tokens
        self._prefix_cache = PrefixCache(kept)
        self._kv_cache_tokens = max(window, max_running * window + kept if kv_cache_tokens is None else kv_cache_tokens)
        self._thread_tuner = ThreadTuner(threads or (0,))
        self._max_waiting, self._max_running = max_waiting, max_running
        self._time_limit, self._clock = time_limit, clock
        self._changed = threading.Condition()  # Guards the next three attributes.
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def stream(self, request: Request, cancel_event: threading.Event | None = None) -> Generator[int, None, None]:
        """The reply's tokens, an end token included. Closing the generator cancels the request.

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
        sequence = self._enqueue(request, cancel_event or threading.Event())
        try:
            while True:
                event = sequence.events.get()
                if isinstance(event, ChatAppError):
                    raise event
                if isinstance(event, list):
                    yield from event
                    continue
                yield event
                if isinstance(event, Finish):
                    return
        finally:
            self._abandon(sequence)

    def close(self) -> None:
        """End all streams with an error, stop the thread and drop the model."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until no request runs or waits. False if some still do after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running and not self._waiting, timeout)

    @property
    def requests(self) -> int:
        """How many requests run or wait."""
        with self._changed:
            return len(self._running) + len(self._waiting)

    def _enqueue(self, request: Request, cancel_event: threading.Event) -> Sequence:
        deadline = self._clock() + self._time_limit
        sequence = start_sequence(request, self.window, self.vocabulary, cancel_event, deadline)
        with self._changed:
            if self._closing:
                raise ChatAppError("The model is no longer loaded.", advice="Ask again.")
            if len(self._waiting) >= self._max_waiting:
                raise BusyError("Too many people are waiting for replies.", advice="Try again in a moment.")
            self._waiting.append(sequence)
            self._changed.notify_all()
        return sequence

    def _abandon(self, sequence: Sequence) -> None:
        """The reader is gone: remove the sequence from the queue at once, or from the batch before the next step."""
        sequence.is_abandoned = True
        with self._changed:
            if sequence in self._waiting:
                self._waiting.remove(sequence)
            self._changed.notify_all()

    def _run(self) -> None:
        """The thread: step after step, until the engine is closed."""
        while self._admit_waiting():
            self._step()
        with self._changed:
            rest = [*self._running, *self._waiting]
            self._running, self._waiting = [], deque()
            self._runner = None
            self._prefix_cache.clear()
            self._changed.notify_all()
        for sequence in rest:
            sequence.kv_cache = None
            sequence.emit(ChatAppError("The model was unloaded before the reply was finished.", advice="Ask again."))

    def _admit_waiting(self) -> bool:
        """Admit the requests that wait longest while there is room for their KV caches; sleep while there is no work.

        Returns:
            False: the engine is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._running or self._waiting)
            now = self._clock()
            for sequence in [one for one in self._waiting if one.is_cancelled or now >= one.deadline]:
                self._waiting.remove(sequence)
                busy = BusyError("The wait for a reply was too long.", advice="Try again in a moment.")
                sequence.emit(Finish("cancelled") if sequence.is_cancelled else busy)
            reserved = sum(sequence.max_total_tokens(self.window) for sequence in self._running)
            while self._waiting and len(self._running) < self._max_running:
                reserved += self._waiting[0].max_total_tokens(self.window)
                if reserved > self._kv_cache_tokens:
                    break
                self._running.append(self._waiting.popleft())
            for position, sequence in enumerate(self._waiting, start=1):
                if sequence.queue_position != position:
                    sequence.queue_position = position
                    sequence.emit(QueuePosition(position))
            self._changed.notify_all()
            return not self._closing

    def _step(self) -> None:
        """One step for all running sequences. An error ends only the sequence that caused it."""
        assert self._runner is not None, "the thread is not closed yet"
        now = self._clock()
        for sequence in tuple(self._running):
            if sequence.is_cancelled or now >= sequence.deadline:
                self._finish(sequence, Finish("cancelled" if sequence.is_cancelled else "time"))
            elif sequence.kv_cache is None:
                self._isolate_errors(sequence, partial(self._attach_kv_cache, sequence))
        batch = self._schedule()
        if len(batch) > 1 and self._runner.supports_batching:
            try:
                return self._run_model(batch)
            except Exception:  # The fault of one sequence: alone, each runs or fails by itself.
                LOGGER.info("a batched step failed; its sequences are run one by one", exc_info=True)
                self._prefix_cache.clear()  # If memory ran out, this frees some.
        for sequence, size in batch:
            self._isolate_errors(sequence, partial(self._run_model, [(sequence, size)]))
        return None

    def _attach_kv_cache(self, sequence: Sequence) -> None:
        """Give a sequence the KV cache of its longest known prefix, or an empty one."""
        assert self._runner is not None, "the thread is not closed yet"
        running = [CachedPrefix(one.ids, one.types, one.kv_cache) for one in self._running if one.kv_cache is not None]
        cached = self._prefix_cache.acquire(sequence.ids, sequence.types, running)
        sequence.kv_cache = self._runner.new_kv_cache() if cached is None else cached
        reserved = sum(one.max_total_tokens(self.window) for one in self._running)
        self._prefix_cache.evict(self._kv_cache_tokens - reserved)

    def _schedule(self) -> list[tuple[Sequence, int]]:
        """How many tokens of each sequence the next step computes: one of each that decodes, and equal shares of a
        chunk for those in prefill."""
        assert self._runner is not None, "the thread is not closed yet"
        decoding = [(sequence, 1) for sequence in self._running if sequence.num_uncomputed_tokens == 1]
        prefilling = [sequence for sequence in self._running if sequence.num_uncomputed_tokens > 1]
        prefilling.sort(key=lambda sequence: sequence.num_uncomputed_tokens)
        left = PREFILL_CHUNK_WHILE_DECODING if decoding else self._runner.prefill_chunk_size
        chunks = []
        for index, sequence in enumerate(prefilling):
            size = min(sequence.num_uncomputed_tokens, -(-left // (len(prefilling) - index)))
            if size:
                chunks.append((sequence, size))
            left -= size
        return [*decoding, *chunks]

    def _run_model(self, batch: list[tuple[Sequence, int]]) -> None:
        """One forward pass over chunks of sequences; then the next token of each whose last token it computed."""
        assert self._runner is not None, "the thread is not closed yet"
        chunks = [sequence.next_chunk(size) for sequence, size in batch]
        tokens = sum(size for _, size in batch)
        threads = self._thread_tuner.choose(tokens)
        if threads:
            torch.set_num_threads(threads)  # Holds for the thread that calls it.
        started = time.perf_counter()
        logits = self._runner.step(chunks)
        self._thread_tuner.record(threads, tokens, time.perf_counter() - started)
        if threads:
            torch.set_num_threads(1)  # Sampling is done before several threads would be awake.
        sampling = [sequence for (sequence, _), chunk in zip(batch, chunks, strict=True) if chunk.needs_logits]
        for sequence, row in zip(sampling, logits, strict=True):
            self._isolate_errors(sequence, partial(self._sample, sequence, row))

    def _sample(self, sequence: Sequence, logits: torch.Tensor) -> None:
        """Sample the next token of a sequence and emit it."""
        token = sequence.sampler.draw(logits, sequence.ids)
        sequence.append_token(token)
        sequence.emit_token(token)
        reason = sequence.finish_reason(self.window)
        if reason is not None:
            self._finish(sequence, Finish(reason))

    def _isolate_errors(self, sequence: Sequence, action: Callable[[], None]) -> None:
        """Do something for one sequence; if it fails, only this sequence ends, with the error."""
        try:
            action()
        except Exception as error:  # The thread's outermost handler: it goes on for the other sequences.
            if not isinstance(error, ChatAppError):
                LOGGER.exception("a request failed")
            self._finish(sequence, _explain(error))

    def _finish(self, sequence: Sequence, outcome: Finish | ChatAppError) -> None:
        """Remove a sequence from the batch; the prefix cache keeps its KV cache unless it failed."""
        if isinstance(outcome, Finish) and sequence.kv_cache is not None:
            self._prefix_cache.insert(CachedPrefix(sequence.ids, sequence.types, sequence.kv_cache))
        sequence.kv_cache = None
        with self._changed:
            self._running.remove(sequence)
            self._changed.notify_all()
        sequence.emit(outcome)


def _explain(error: Exception) -> ChatAppError:
    """What the reader of a failed request is told."""
    return error.with_traceback(None) if isinstance(error, ChatAppError) else explain(error, "The model")
