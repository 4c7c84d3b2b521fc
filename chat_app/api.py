"""The HTTP API on the app's port: OpenAI's chat completions and list of models, GPTChat's /generate, and /health.

Where the server has an auth file or a key (the environment's CHAT_APP_API_KEY), programs send one of
`Authorization: Bearer KEY`, `Authorization: Bearer name:password`, or HTTP Basic with name and password. /health is
open to everybody.

Knows requests and answers; what makes a reply is `chat`, and who may call at all is `guard`.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.security import HTTPBasic, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from chat_app.accounts import Accounts, NotLoggedIn, TooManyTries
from chat_app.api_schema import ChatRequest, GenerateRequest, error_body, explain
from chat_app.chat import ReplyEnd, stream_reply
from chat_app.config import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.errors import BusyError, ChatAppError, ModelNotFound, SettingError
from chat_app.model_files import available
from chat_app.models import LoadedModel
from chat_app.relay import Relay, Relays, stopping_when_gone
from chat_app.services import Services

LOGGER = logging.getLogger(__name__)
DEFAULT_MODEL = "default"
SAMPLES = 5
MOST_WAITING = 64
GENERATE_SAMPLING = SamplingConfig(temperature=1.0, top_k=50, top_p=0.9)
_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_API_NAMES = {"max_new_tokens": "max_tokens"}


class Api:
    """The routes.

    Args:
        services: what answers.
        accounts: which programs may ask.
        is_loading: whether the first model is still on its way.
    """

    def __init__(self, services: Services, accounts: Accounts, is_loading: Callable[[], bool]):
        self._services, self._accounts, self._is_loading = services, accounts, is_loading
        self.relays = Relays(MOST_WAITING)

    def add_to(self, app: FastAPI) -> None:
        """Put the routes and the shape of their errors into an application."""
        shown = [Depends(HTTPBasic(auto_error=False)), Depends(HTTPBearer(auto_error=False))]  # In /docs.
        router = APIRouter(dependencies=[*shown, Depends(self._check)])
        router.add_api_route("/v1/models", self.models, methods=["GET"], tags=["OpenAI"])
        router.add_api_route("/v1/chat/completions", self.chat, methods=["POST"], response_model=None, tags=["OpenAI"])
        router.add_api_route("/generate", self.generate, methods=["POST"], response_model=None, tags=["GPTChat"])
        app.add_api_route("/health", self.health, methods=["GET"], tags=["Server"])
        app.include_router(router)
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        app.add_api_route("/v1/{rest:path}", _nothing_here, methods=methods, include_in_schema=False)
        app.add_exception_handler(ChatAppError, _explained)
        app.add_exception_handler(RequestValidationError, _invalid)
        app.add_exception_handler(HTTPException, _http_error)
        app.add_exception_handler(Exception, _unexpected)

    async def _check(self, request: Request) -> None:
        address = request.client.host if request.client else "unknown"
        self._accounts.check_program(request.headers.get("authorization"), address)

    async def health(self) -> dict[str, str | None]:
        """Whether the server can answer: "loading" until the first model is there. Open to everybody."""
        loaded = self._services.models.current
        is_loading = loaded is None and self._is_loading()
        return {"status": "loading" if is_loading else "ok", "model": public_name(loaded) if loaded else None}

    def models(self) -> dict[str, Any]:
        """The model in use; on one's own computer also those that could be."""
        loaded = self._services.models.current
        names = [public_name(loaded)] if loaded else []
        if not self._services.rules.is_shared:
            names += [row.name for row in available(self._services.paths) if row.name not in names]
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "chat_app"} for name in names]
        return {"object": "list", "data": rows}

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        """The next reply of a conversation, in OpenAI's schema; with `stream`, as server-sent events."""
        loaded = self._model(body.model)
        conversation, count = body.conversation(), body.n or 1
        samplings = [body.sampling(reply) for reply in range(count)]
        if not body.stream:
            ends = await self._replies(request, loaded, conversation, samplings)
            return JSONResponse(_completion(public_name(loaded), ends))
        if count > 1:
            raise SettingError("n", "A stream has one reply.", advice="Leave n out, or stream.")
        events = _Events(public_name(loaded), body.wants_usage)
        relay = self.relays.start(lambda stopped: stream_reply(loaded, conversation, samplings[0], stopped=stopped))
        async with stopping_when_gone(request, relay):
            first = await relay.next()  # An error before the first text still has a status of its own.
        return _EventStream(relay, events, first)

    async def generate(self, body: GenerateRequest, request: Request) -> Response:
        """Of five replies the one of median length, in GPTChat's schema. `response` is how the reply begins."""
        loaded = self._model(None)
        conversation = Conversation.from_turns([body.context])
        ends = await self._replies(request, loaded, conversation, [GENERATE_SAMPLING] * SAMPLES, body.response or "")
        chosen = sorted(ends, key=lambda end: len(end.text))[len(ends) // 2]
        about = {
            "name": public_name(loaded),
            "format": loaded.encoder.format.name,
            "parameters": loaded.files.parameters,
            "window": loaded.engine.window,
        }
        return JSONResponse({"response": chosen.text, "request": body.model_dump(), "model_info": about})

    def _model(self, name: str | None) -> LoadedModel:
        loaded = self._services.models.current
        if loaded is None:
            what = "The model is being loaded." if self._is_loading() else "No model is loaded."
            raise BusyError(what, advice="Try again in a moment." if self._is_loading() else "Choose one on the page.")
        if name not in (None, "", DEFAULT_MODEL, loaded.name, public_name(loaded)):
            raise ModelNotFound(
                f"The model '{str(name)[:200]}' is not in use here.", advice=f"Ask for '{public_name(loaded)}'."
            )
        return loaded

    async def _replies(
        self,
        request: Request,
        loaded: LoadedModel,
        conversation: Conversation,
        samplings: list[SamplingConfig],
        prefix: str = "",
    ) -> list[ReplyEnd]:
        """A finished reply for each way of drawing. If the caller leaves, the rest is not written."""

        def ends(stopped: threading.Event) -> Generator[ReplyEnd, None, None]:
            for sampling in samplings:
                if stopped.is_set():
                    return
                for item in stream_reply(loaded, conversation, sampling, prefix, stopped):
                    if isinstance(item, ReplyEnd):
                        yield item

        relay = self.relays.start(ends)
        finished: list[ReplyEnd] = []
        async with stopping_when_gone(request, relay):
            while (end := await relay.next()) is not None:
                finished.append(end)
        if len(finished) < len(samplings):
            # Nobody reads this but a log: the caller left, or the server ends.
            raise BusyError("The reply was stopped.")
        return finished


def public_name(loaded: LoadedModel) -> str:
    """The name of a model as programs see it: of a folder only its last part."""
    return Path(loaded.name).name or loaded.name if loaded.files.kind == "folder" else loaded.name


class _Events:
    """The server-sent events of one reply."""

    def __init__(self, model: str, wants_usage: bool):
        self._head = {"id": _new_id(), "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
        self._wants_usage = wants_usage

    def first(self) -> str:
        """Who speaks."""
        return self._event([_choice({"role": "assistant", "content": ""})])

    def of(self, item: str | ReplyEnd) -> str:
        """A piece of text, or the end."""
        if isinstance(item, str):
            return self._event([_choice({"content": item})])
        last = self._event([_choice({}, _finish_reason(item))])
        return last + self._event([], usage=_usage([item])) if self._wants_usage else last

    def error(self, error: ChatAppError) -> str:
        """What went wrong after the stream had begun."""
        return _data(error_body(error.sentence(), "server_error"))

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        usage = {"usage": None} if self._wants_usage and not more else more
        return _data({**self._head, "choices": choices, **usage})


class _EventStream(StreamingResponse):
    """Sends a relay's items as events. However sending ends, the relay does too."""

    def __init__(self, relay: Relay[str | ReplyEnd], events: _Events, first: str | ReplyEnd | None):
        self._relay, self._events, self._first = relay, events, first
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(self._sent(), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._relay.stopped.set()

    async def _sent(self) -> AsyncIterator[str]:
        yield self._events.first()
        item = self._first
        try:
            while item is not None:
                yield "".join(self._events.of(one) for one in (item, *self._relay.ready()))
                item = await self._relay.next()
        except ChatAppError as error:
            yield self._events.error(error)
        except Exception:  # The edge of the answer: its status is sent already.
            LOGGER.exception("a reply failed")
            yield self._events.error(ChatAppError("The reply failed."))
        yield "data: [DONE]\n\n"


def _completion(model: str, ends: list[ReplyEnd]) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": end.text, "refusal": None},
            "logprobs": None,
            "finish_reason": _finish_reason(end),
        }
        for index, end in enumerate(ends)
    ]
    head = {"id": _new_id(), "object": "chat.completion", "created": int(time.time()), "model": model}
    return {**head, "choices": choices, "usage": _usage(ends)}


def _usage(ends: list[ReplyEnd]) -> dict[str, int]:
    prompt, written = ends[0].prompt_tokens, sum(end.reply_tokens for end in ends)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _finish_reason(end: ReplyEnd) -> str:
    return "length" if end.reason in ("length", "window") else "stop"


def _choice(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _data(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


def _answer(status: int, message: str, *, param: str | None = None, code: str | None = None) -> JSONResponse:
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return JSONResponse(error_body(message, kind, param=param, code=code), status)


async def _nothing_here(request: Request) -> Response:
    """What is not an address of the API is not one of the page either."""
    return _answer(404, f"There is no {request.method} {request.url.path[:200]} here.", code="unknown_url")


async def _explained(request: Request, error: Exception) -> Response:
    assert isinstance(error, ChatAppError)
    if isinstance(error, ModelNotFound):
        return _answer(404, error.sentence(), param="model", code="model_not_found")
    field = error.field if isinstance(error, SettingError) else None
    field = _API_NAMES.get(field, field) if field else None
    response = _answer(error.http_status, error.sentence(), param=field)
    if isinstance(error, NotLoggedIn):
        response.headers["www-authenticate"] = 'Basic realm="chat_app"'
    if isinstance(error, TooManyTries):
        response.headers["retry-after"] = str(int(error.seconds) + 1)
    return response


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    message, field = explain(error.errors())
    return _answer(400, message, param=field)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _answer(error.status_code, str(error.detail))
    response.headers.update(error.headers or {})
    return response


async def _unexpected(request: Request, error: Exception) -> Response:
    # It is raised again after this, and logged by who runs the server.
    return _answer(500, "Something went wrong on the server.")
