"""The remote `ReplyBackend`: a model on another server (vLLM, TGI, llama.cpp, another chat_app) that has OpenAI's API.

The address comes from the command line, never from a visitor, and redirects are not followed. The responses are parsed
in `protocol`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Coroutine, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.errors import ChatAppError, DataError, ModelNotFoundError, SettingError
from chat_app.inference.backend import FinishReason, ModelDescription, ReplyEnd, ReplyEvent, ReplyRequest, TextDelta
from chat_app.inference.remote.protocol import (
    ContextLengthError,
    ListedModel,
    RemoteEngineError,
    StreamDelta,
    error_for_status,
    parse_models,
    parse_stream,
)

KEY_VARIABLE = "CHAT_APP_ENGINE_KEY"
ANY_MODEL = "default"  # For servers with one model and no list.
MAX_CONNECTIONS = 200
_MAX_BODY_BYTES = 2**20
_POLL_SECONDS = 0.1  # How often the cancel event is checked.
# Parameters that OpenAI's own servers refuse; other servers use or ignore them.
_EXTENSIONS = ("top_k", "min_p", "repetition_penalty")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect, from one delta of the reply to the next (also to the first), and for the whole reply."""

    connect: float = 10.0
    delta: float = 120.0
    reply: float = 600.0


def check_address(url: str) -> str:
    """The address of an OpenAI-compatible server, as it ends before /chat/completions.

    Raises:
        SettingError: it is none.
    """
    advice = "Write it as in http://127.0.0.1:8000/v1."
    try:
        parts = urlsplit(url.strip())
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address:
        raise SettingError("--engine", f"'{url[:200]}' is no address.", advice=advice)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingError(
            "--engine", "It has more than an address.", advice=f"{advice} A key goes into {KEY_VARIABLE}."
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


class RemoteModel:
    """A model on another server, as a `ReplyBackend`. All its connections run in one event loop in a thread of its own.

    Args:
        url: as `check_address` gives it.
        wanted: the model's name there; empty takes the first that the server lists.
        key: the API key; default the environment variable CHAT_APP_ENGINE_KEY.
        timeouts: how long it waits.
    """

    def __init__(self, url: str, wanted: str = "", key: str | None = None, timeouts: Timeouts | None = None):
        self.url, self._wanted = url, wanted
        self.host = urlsplit(url).netloc
        self._where = f"the engine at {self.host}"
        self._key = os.environ.get(KEY_VARIABLE, "") if key is None else key
        self._timeouts = timeouts or Timeouts()
        self._model: ListedModel | None = None
        self._takes_extensions = True  # Until the server has refused one.
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: httpx.AsyncClient | None = None
        self._is_closed = False

    @property
    def name(self) -> str:
        """The model's name at the server; empty until it is known."""
        return self._model.name if self._model is not None else self._wanted

    @property
    def description(self) -> ModelDescription:
        """What the server reports about the model."""
        return ModelDescription(self.name, "remote", self._model is not None, self._window, host=self.host)

    @property
    def _window(self) -> int:
        return self._model.window if self._model is not None else 0

    def connect(self) -> None:
        """Ask the server for its models and choose one.

        Raises:
            RemoteEngineError, BusyError: it cannot be reached, or refuses the request.
            ModelNotFoundError: it has no model of that name.
        """
        status, body = self._run_blocking(self._get("/models"))
        if status == 404:  # Servers of one model may have no list.
            self._model = ListedModel(self._wanted or ANY_MODEL, 0)
            return
        if status != 200:
            raise error_for_status(status, body, self._where, KEY_VARIABLE)
        models = parse_models(body, self._where)
        found = [one for one in models if one.name == self._wanted] if self._wanted else models
        if not found:
            names = ", ".join(one.name for one in models[:8])
            advice = f"It has: {names[:300]}." if names else "It has none at all."
            raise ModelNotFoundError(f"There is no model '{self._wanted[:200]}' at {self._where}.", advice=advice)
        self._model = found[0]

    def stream(
        self, request: ReplyRequest, cancel_event: threading.Event | None = None
    ) -> Generator[ReplyEvent, None, None]:
        """The assistant's next turn, as `ReplyBackend.stream` describes it; cancelling ends it at the server too.

        Where the conversation is too long for the server's model, its older half is left out, until the rest fits.

        Raises:
            RemoteEngineError, BusyError: the server cannot be reached, refuses the request, or fails.
            DataError, SettingError: it does not take what was asked for.
        """
        conversation, sampling = request.conversation, request.sampling
        if request.prefix.strip():
            raise SettingError("response", f"It cannot be passed on to {self._where}.", advice="Leave it out.")
        if conversation.turns[-1].role != "user":
            raise DataError("The last turn is the assistant's.", advice="Say something first.")
        if self._model is None:
            self.connect()
        reply = _RemoteReply(self._window, cancel_event or threading.Event(), self._timeouts.reply)
        turns, remembered = len(conversation.turns), sampling.remembered_turns
        given = left = _odd(remembered) if 0 < remembered < turns else turns
        while True:
            body = self._build_body(conversation.keep_latest(left), sampling, request.logprobs)
            try:
                yield from self._stream_deltas(body, reply)
                break
            except ContextLengthError:
                if left == 1:
                    raise
                left = _odd(left // 2)
                reply.dropped_turns = given - left
            except DataError as error:
                if not self._takes_extensions or not any(name in str(error) for name in _EXTENSIONS):
                    raise
                self._takes_extensions = False
        yield reply.end()

    def close(self) -> None:
        """End all replies under way."""
        with self._starting:
            self._is_closed = True
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _build_body(self, conversation: Conversation, sampling: SamplingConfig, logprobs: int | None) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [{"role": one.role, "content": one.text} for one in conversation.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p or 0.01,  # Many refuse 0, which means the same: the likeliest.
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed >= 0:
            body["seed"] = sampling.seed
        for name in ("presence_penalty", "frequency_penalty"):
            if value := getattr(sampling, name):
                body[name] = value
        if self._takes_extensions:
            neutral = SamplingConfig(top_k=0, min_p=0, repetition_penalty=1)
            for name in _EXTENSIONS:
                if (value := getattr(sampling, name)) != getattr(neutral, name):
                    body[name] = value
        if logprobs is not None:
            body.update(logprobs=True, top_logprobs=logprobs)
        return body

    def _stream_deltas(self, body: dict[str, Any], reply: _RemoteReply) -> Generator[TextDelta, None, None]:
        """The deltas of a reply until it ends or is cancelled."""
        items: queue.SimpleQueue[StreamDelta | Exception | None] = queue.SimpleQueue()
        task = self._submit(self._post(body, items))
        try:
            while (item := _next(items, reply)) is not None:
                if isinstance(item, Exception):
                    raise item
                if delta := reply.add(item):
                    yield delta
        finally:
            task.cancel()

    async def _post(self, body: dict[str, Any], items: queue.SimpleQueue[StreamDelta | Exception | None]) -> None:
        try:
            async with self._http().stream("POST", f"{self.url}/chat/completions", json=body) as response:
                if response.status_code != 200:
                    raise error_for_status(response.status_code, await _body(response), self._where, KEY_VARIABLE)
                async for delta in parse_stream(response.aiter_raw(), self._where):
                    items.put(delta)
            items.put(None)
        except Exception as error:  # The task's outermost handler: the reading thread raises the error again.
            items.put(self._explain(error))
        except asyncio.CancelledError:
            # Cancelled by close(); after any other cancellation, the queue has no reader.
            items.put(RemoteEngineError("The reply was stopped."))
            raise

    async def _get(self, path: str) -> tuple[int, bytes]:
        try:
            async with self._http().stream("GET", self.url + path, timeout=self._timeouts.connect) as response:
                return response.status_code, await _body(response)
        except Exception as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> Exception:
        """The error for a failed connection, as a sentence."""
        if isinstance(error, ChatAppError):
            return error
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            return RemoteEngineError(
                f"Nothing answers at {self.host}, the engine.", advice="Check that it runs; try again."
            )
        if isinstance(error, httpx.TimeoutException):
            return RemoteEngineError(f"There was no answer from {self._where}.", advice="Try again in a moment.")
        if isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError)):
            return RemoteEngineError(f"The connection to {self._where} broke.", advice="Try again.")
        return RemoteEngineError(f"The request to {self._where} failed ({type(error).__name__}).")

    def _http(self) -> httpx.AsyncClient:
        """The HTTP client. Called in the event loop only."""
        if self._client is None:
            headers = {"accept-encoding": "identity"}
            if self._key:
                headers["authorization"] = f"Bearer {self._key}"
            seconds, limits = self._timeouts, httpx.Limits(max_connections=MAX_CONNECTIONS)
            timeout = httpx.Timeout(seconds.delta, connect=seconds.connect)
            self._client = httpx.AsyncClient(headers=headers, timeout=timeout, limits=limits, follow_redirects=False)
        return self._client

    def _submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run a coroutine in the event loop, whose thread is started at the first call."""
        with self._starting:
            if self._is_closed:
                work.close()
                raise RemoteEngineError("This server ends.")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._run_loop, args=(self._loop,), name="remote engine", daemon=True).start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _run_blocking(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._submit(work).result()

    def _run_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """The event loop's thread; when the loop is stopped, the tasks that are left are cancelled."""
        asyncio.set_event_loop(loop)
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        if self._client is not None:
            loop.run_until_complete(self._client.aclose())
        loop.close()


def _odd(turns: int) -> int:
    """Round down to an odd number of turns: the first is the user's then, as the last is, and some templates insist."""
    return max(turns - 1 + turns % 2, 1)


class _RemoteReply:
    """The state of a reply under way."""

    def __init__(self, window: int, cancel_event: threading.Event, seconds: float):
        self._cancel_event = cancel_event
        self.dropped_turns = 0
        self._window = window
        self._started = time.perf_counter()
        self._deadline = self._started + seconds
        self._first = 0.0
        self._text: list[str] = []
        self._deltas = 0
        self._counts: tuple[int, int] | None = None
        self._reason: FinishReason | None = None

    @property
    def is_over(self) -> bool:
        """Whether it was cancelled, or its time is up."""
        if self._cancel_event.is_set():
            self._reason = "cancelled"
        elif time.perf_counter() >= self._deadline:
            self._reason = "time"
        return self._reason in ("cancelled", "time")

    def add(self, delta: StreamDelta) -> TextDelta | None:
        """Take in one more event of the stream. Returns its text, if it has any."""
        self._counts = delta.counts or self._counts
        self._reason = delta.reason or self._reason
        if not delta.text:
            return None
        self._first = self._first or time.perf_counter() - self._started
        self._deltas += 1
        self._text.append(delta.text)
        return TextDelta(delta.text, delta.tokens or None)

    def end(self) -> ReplyEnd:
        """The finished reply. If the server reports no token counts, its deltas are counted."""
        seconds = time.perf_counter() - self._started
        read, written = self._counts or (0, self._deltas)
        first = self._first or seconds
        text, reason = "".join(self._text), self._reason or "end"
        return ReplyEnd(text, reason, written, read, self._window, seconds, first, self.dropped_turns)


def _next(
    items: queue.SimpleQueue[StreamDelta | Exception | None], reply: _RemoteReply
) -> StreamDelta | Exception | None:
    """The next item; None also when the reply was cancelled or its time is up."""
    while not reply.is_over:
        with contextlib.suppress(queue.Empty):
            return items.get(timeout=_POLL_SECONDS)
    return None


async def _body(response: httpx.Response) -> bytes:
    """The beginning of a response."""
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            break
    return body[:_MAX_BODY_BYTES]
