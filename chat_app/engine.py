"""Token streams from one loaded model, for several people at once.

One thread owns the forward passes. It gives each request one step in turn, so that nobody waits for another's whole
reply, and reads long prompts in pieces for the same reason. Each request has its own key/value cache; those of the last
few finished ones are kept, so that the next turn of a chat computes only what is new. Knows ids, no text.
"""

from __future__ import annotations

import inspect
import logging
import queue
import threading
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from chat_app.config import SamplingConfig
from chat_app.errors import BusyError, ChatAppError, DataError, ModelError
from chat_app.sampling import Sampler

LOGGER = logging.getLogger(__name__)
PROMPT_PIECE = 256  # Tokens of a prompt read in one step: about a tenth of a second for GPT-2 on two cores.


@dataclass(frozen=True)
class Request:
    """What to continue, and how.

    Attributes:
        ids: token ids of the prompt, at least one.
        types: token type ids, as many, or None where the model has none.
        next_type: the type of every token of the reply, where there are types.
        sampling: how to draw; its limit of new tokens, stop texts and remembered turns are not the engine's business.
        end_ids: a token of these is the reply's last.
        silent_ids: tokens that never occur.
        max_new_tokens: the most tokens of the reply, its end mark included.
    """

    ids: list[int]
    types: list[int] | None
    next_type: int | None
    sampling: SamplingConfig
    end_ids: frozenset[int]
    silent_ids: frozenset[int]
    max_new_tokens: int


@dataclass(eq=False)
class _Work:
    """A request under way. `computed` of its `ids` are in `cache`."""

    request: Request
    sampler: Sampler
    stopped: threading.Event
    ids: list[int]
    types: list[int] | None
    left: bool = False
    cache: DynamicCache | None = None
    computed: int = 0
    out: queue.SimpleQueue[int | ChatAppError | None] = field(default_factory=queue.SimpleQueue)

    @property
    def is_cancelled(self) -> bool:
        return self.left or self.stopped.is_set()

    @property
    def written(self) -> int:
        return len(self.ids) - len(self.request.ids)


@dataclass(frozen=True)
class _Kept:
    """A finished request's cache: keys and values of each layer, [1, heads, len(ids), head width]."""

    ids: list[int]
    types: list[int] | None
    layers: list[tuple[torch.Tensor, torch.Tensor]]


class _KeptCaches:
    """The caches of the last finished requests, oldest first, together at most `most_tokens` long. One thread's."""

    def __init__(self, most_tokens: int):
        self._most_tokens = most_tokens
        self._entries: list[_Kept] = []

    def keep(self, work: _Work) -> None:
        """Keep what `work` has computed, in place of what is the beginning of it."""
        layers: list[Any] = work.cache.layers if work.cache is not None else []
        if not work.computed or any(type(layer) is not DynamicLayer for layer in layers):
            return  # Other kinds of layers (sliding windows, states) cannot be cut to a prefix.
        types = work.types[: work.computed] if work.types is not None else None
        pairs = [(layer.keys, layer.values) for layer in layers]
        new = _Kept(work.ids[: work.computed], types, pairs)
        others = [one for one in self._entries if _common(one, new.ids, new.types) < len(one.ids)]
        self._entries = [*others, new]
        while sum(len(one.ids) for one in self._entries) > self._most_tokens:
            self._entries.pop(0)

    def start(self, work: _Work, config: Any) -> None:
        """Give `work` a cache with the longest kept beginning of its ids; the last id is always left to compute."""
        work.cache, work.computed = DynamicCache(config=config), 0
        lengths = [_common(one, work.ids, work.types) for one in self._entries]
        length = min(max(lengths, default=0), len(work.ids) - 1)
        if not length:
            return
        best = self._entries.pop(lengths.index(max(lengths)))
        self._entries.append(best)
        for index, (keys, values) in enumerate(best.layers):
            work.cache.update(keys[..., :length, :], values[..., :length, :], index)
        work.computed = length

    def clear(self) -> None:
        """Forget all."""
        self._entries = []


def _common(kept: _Kept, ids: list[int], types: list[int] | None) -> int:
    """How many tokens two sequences share from the beginning, ids and types."""
    if (kept.types is None) != (types is None):
        return 0
    for at, (one, other) in enumerate(zip(kept.ids, ids, strict=False)):
        if one != other or (kept.types is not None and types is not None and kept.types[at] != types[at]):
            return at
    return min(len(kept.ids), len(ids))


class _Forward:
    """The forward passes of one model, a piece of one request at a time."""

    def __init__(self, model: Any, kept: _KeptCaches):
        accepted = inspect.signature(model.forward).parameters
        if "past_key_values" not in accepted:
            raise ModelError("This kind of model cannot be used to chat here: it keeps no key/value cache.")
        self._model = model
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.kept = kept

    @torch.inference_mode()
    def step(self, work: _Work) -> int | None:
        """Compute the next piece of the prompt, or the last token written. Returns the next token once there is one."""
        if work.cache is None:
            self.kept.start(work, self._model.config)
        piece = slice(work.computed, work.computed + PROMPT_PIECE)
        device = self._model.device
        inputs = {"input_ids": torch.tensor([work.ids[piece]], device=device)}  # [1, piece]
        if work.types is not None:
            inputs["token_type_ids"] = torch.tensor([work.types[piece]], device=device)
        output = self._model(**inputs, **self._last_only, past_key_values=work.cache, use_cache=True)
        work.computed += inputs["input_ids"].shape[1]
        if work.computed < len(work.ids):
            return None
        token = work.sampler.draw(output.logits[0, -1], work.ids)
        work.ids.append(token)
        if work.types is not None:
            work.types.append(work.request.next_type or 0)
        return token


def write(model: Any, request: Request, window: int) -> list[int]:
    """The whole reply of a model that has no engine, such as one that is being trained; in this thread.

    Raises:
        DataError: the prompt is empty or leaves no room in the window.
        ChatAppError: the model's scores are no numbers.
    """
    work = _work(request, window, threading.Event())
    forward = _Forward(model, _KeptCaches(0))
    was_training = model.training
    model.eval()
    try:
        while not _is_finished(work, window):
            forward.step(work)
    finally:
        model.train(was_training)
    return work.ids[len(request.ids) :]


def _work(request: Request, window: int, stopped: threading.Event) -> _Work:
    if not 0 < len(request.ids) < window:
        what = "fills the whole window" if request.ids else "is empty"
        raise DataError(f"The prompt {what} ({len(request.ids)} of {window} tokens).")
    sampler = Sampler(request.sampling, request.end_ids, request.silent_ids, len(request.ids))
    types = list(request.types) if request.types is not None else None
    return _Work(request, sampler, stopped, list(request.ids), types)


def _is_finished(work: _Work, window: int) -> bool:
    """Whether the reply has ended: by its end mark, its limit, or the window's."""
    if work.written and work.ids[-1] in work.request.end_ids:
        return True
    return work.written >= work.request.max_new_tokens or len(work.ids) >= window


class Engine:
    """Streams tokens of one model.

    Args:
        model: a causal language model of transformers.
        window: the most tokens a prompt and its reply may have together.
        most_waiting: how many requests may wait for their turn; more are refused.
        most_active: how many are stepped in turn.
        kept_tokens: how long the caches kept between requests may be together; default four windows.
        threads: processor threads for a step; default torch's number.

    Raises:
        ModelError: the model has no key/value cache.
    """

    def __init__(
        self,
        model: Any,
        window: int,
        most_waiting: int = 64,
        most_active: int = 8,
        kept_tokens: int | None = None,
        threads: int | None = None,
    ):
        self.window = window
        self._threads = threads
        kept = _KeptCaches(4 * window if kept_tokens is None else kept_tokens)
        self._forward: _Forward | None = _Forward(model.eval(), kept)
        self._most_waiting, self._most_active = most_waiting, most_active
        self._changed = threading.Condition()  # Guards the three below.
        self._waiting: deque[_Work] = deque()
        self._active: list[_Work] = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def stream(self, request: Request, stopped: threading.Event | None = None) -> Generator[int, None, None]:
        """The reply's tokens, the end mark included if the model wrote one. Closing the iterator frees the request.

        Args:
            stopped: another way to end the stream, from any thread: it ends within one step after the event is set.

        Raises:
            DataError: the prompt is empty or leaves no room in the window.
            BusyError: too many requests wait already.
            ChatAppError: this request failed, or the engine was closed.
        """
        work = self._admit(request, stopped or threading.Event())
        try:
            while (item := work.out.get()) is not None:
                if isinstance(item, ChatAppError):
                    raise item
                yield item
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

    def _admit(self, request: Request, stopped: threading.Event) -> _Work:
        work = _work(request, self.window, stopped)
        with self._changed:
            if self._closing:
                raise ChatAppError("The model is no longer loaded.", advice="Ask again.")
            if len(self._waiting) >= self._most_waiting:
                raise BusyError("Too many people are waiting for replies.", advice="Try again in a moment.")
            self._waiting.append(work)
            self._changed.notify_all()
        return work

    def _leave(self, work: _Work) -> None:
        """The reader is gone: give its place free at once if it waits, else before its next step."""
        work.left = True
        with self._changed:
            if work in self._waiting:
                self._waiting.remove(work)
            self._changed.notify_all()

    def _run(self) -> None:
        """The thread: one step for each active request in turn, until closed."""
        if self._threads is not None:
            torch.set_num_threads(self._threads)  # Holds for the thread that calls it.
        while self._gather():
            for work in tuple(self._active):
                if not self._closing:
                    self._advance(work)
        with self._changed:
            rest = [*self._active, *self._waiting]
            self._active, self._waiting = [], deque()
            self._forward = None
            self._changed.notify_all()
        for work in rest:
            work.cache = None
            work.out.put(ChatAppError("The model was unloaded before the reply was finished.", advice="Ask again."))

    def _gather(self) -> bool:
        """Let waiting requests in; sleep while there is nothing to do. False: close."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._active or self._waiting)
            for work in [work for work in self._waiting if work.is_cancelled]:
                self._waiting.remove(work)
                work.out.put(None)
            while self._waiting and len(self._active) < self._most_active:
                self._active.append(self._waiting.popleft())
            self._changed.notify_all()
            return not self._closing

    def _advance(self, work: _Work) -> None:
        """One step of one request. Whatever goes wrong concerns only this one."""
        assert self._forward is not None, "the thread is not closed yet"
        if work.is_cancelled:
            return self._retire(work, None)
        try:
            token = self._forward.step(work)
        except ChatAppError as error:
            return self._retire(work, error.with_traceback(None))
        except torch.OutOfMemoryError:
            self._forward.kept.clear()
            return self._retire(work, ChatAppError("The memory of the GPU ran out.", advice="Use a smaller model."))
        except Exception as error:  # The thread's edge: it goes on for the others.
            LOGGER.exception("a request failed")
            return self._retire(work, ChatAppError(f"The model failed ({type(error).__name__}: {error})."))
        if token is not None:
            work.out.put(token)
            if _is_finished(work, self.window):
                self._retire(work, None)
        return None

    def _retire(self, work: _Work, error: ChatAppError | None) -> None:
        if error is None and self._forward is not None:
            self._forward.kept.keep(work)
        work.cache = None
        with self._changed:
            self._active.remove(work)
            self._changed.notify_all()
        work.out.put(error)
