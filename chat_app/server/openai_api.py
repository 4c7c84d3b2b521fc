"""The HTTP API on the app's port: OpenAI's chat completions and list of models, GPTChat's /generate, and /health.

Where the server has an auth file or an API key (CHAT_APP_API_KEY in the environment), programs send one of
`Authorization: Bearer KEY`, `Authorization: Bearer name:password`, or HTTP Basic with name and password. /health needs
no credentials.

Replies are generated in `chat_app.inference.generation`; requests are refused by Host, Origin and size in `guard`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBasic, HTTPBearer
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from chat_app.config.sampling import SamplingConfig
from chat_app.config.server import QuoteMode
from chat_app.conversation import Conversation
from chat_app.errors import BusyError, ChatAppError, ModelNotFoundError, SettingError
from chat_app.inference.backend import ReplyBackend, ReplyEnd, ReplyRequest, TextDelta, stream_reply
from chat_app.inference.quoting import QuotingBackend
from chat_app.models.resolver import available
from chat_app.server.auth import Accounts, AuthenticationError, TooManyAttemptsError
from chat_app.server.openai_responses import ChunkEncoder, CollectedReply, EventStreamResponse, build_completion
from chat_app.server.openai_schema import ChatRequest, GenerateRequest, error_body, explain
from chat_app.server.streaming import StreamRegistry, ThreadToAsyncStream, stop_on_disconnect
from chat_app.services import Services

DEFAULT_MODEL = "default"
SAMPLES = 5
MAX_STREAMS = 64
_POLL_SECONDS = 0.05  # How often a generator that waits for another's prefill checks for cancellation.
GENERATE_SAMPLING = SamplingConfig(temperature=1.0, top_k=50, top_p=0.9)
_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
ReplyFactory = Callable[[threading.Event], Generator[TextDelta | ReplyEnd, None, None]]
_API_NAMES = {"max_new_tokens": "max_tokens"}


class Api:
    """The routes.

    Args:
        services: has the model that answers.
        accounts: check the credentials of programs.
        is_loading: whether the first model is still being loaded.
    """

    def __init__(self, services: Services, accounts: Accounts, is_loading: Callable[[], bool]):
        self._services, self._accounts, self._is_loading = services, accounts, is_loading
        self.streams = StreamRegistry(MAX_STREAMS)

    def add_to(self, app: FastAPI) -> None:
        """Add the routes and the error handlers to an application."""
        shown = [Depends(HTTPBasic(auto_error=False)), Depends(HTTPBearer(auto_error=False))]  # In /docs.
        router = APIRouter(dependencies=[*shown, Depends(self._authenticate)])
        router.add_api_route("/v1/models", self.models, methods=["GET"], tags=["OpenAI"])
        router.add_api_route("/v1/models/{name:path}", self.model, methods=["GET"], tags=["OpenAI"])
        router.add_api_route("/v1/chat/completions", self.chat, methods=["POST"], response_model=None, tags=["OpenAI"])
        router.add_api_route("/generate", self.generate, methods=["POST"], response_model=None, tags=["GPTChat"])
        app.add_api_route("/health", self.health, methods=["GET"], tags=["Server"])
        app.include_router(router)
        methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        app.add_api_route("/v1/{rest:path}", _answer_unknown_path, methods=methods, include_in_schema=False)
        app.add_exception_handler(ChatAppError, _handle_chat_app_error)
        app.add_exception_handler(RequestValidationError, _handle_invalid_request)
        app.add_exception_handler(HTTPException, _handle_http_error)
        app.add_exception_handler(Exception, _handle_unexpected_error)

    async def _authenticate(self, request: Request) -> None:
        address = request.client.host if request.client else "unknown"
        self._accounts.check_program(request.headers.get("authorization"), address)

    async def health(self) -> dict[str, str | None]:
        """Whether the server can answer: "loading" until the first model is there. Needs no credentials."""
        loaded = self._services.find_backend()
        is_loading = loaded is None and self._is_loading()
        return {"status": "loading" if is_loading else "ok", "model": public_name(loaded) if loaded else None}

    def models(self) -> dict[str, Any]:
        """The loaded model; where the server is not shared also those that could be loaded."""
        loaded = self._services.find_backend()
        rows = [_describe_model(public_name(loaded), loaded.description.window)] if loaded else []
        if not self._services.rules.is_shared:
            known = {row["id"] for row in rows}
            rows += [
                _describe_model(one.name, one.window)
                for one in available(self._services.paths)
                if one.name not in known
            ]
        return {"object": "list", "data": rows}

    def model(self, name: str) -> dict[str, Any]:
        """One model of the list."""
        found: dict[str, Any] | None = next((row for row in self.models()["data"] if row["id"] == name), None)
        if found is None:
            raise ModelNotFoundError(f"There is no model '{name[:200]}' here.", advice="GET /v1/models lists them.")
        return found

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        """The next reply of a conversation, in OpenAI's schema; with `stream`, as server-sent events."""
        loaded = self._model(body.model)
        writer = self._quote(loaded, body.answer_from_list)
        conversation, logprobs = body.conversation(), body.requested_logprobs()
        requests = [
            ReplyRequest(conversation, body.sampling(number), logprobs=logprobs) for number in range(body.n or 1)
        ]
        factories = [partial(stream_reply, writer, one) for one in requests]
        if not body.stream:
            written = await self._collect_replies(request, factories, logprobs is not None)
            return JSONResponse(build_completion(public_name(loaded), written))
        stream = self.streams.start(_share_prefill(factories))
        events = ChunkEncoder(public_name(loaded), len(factories), body.wants_usage)
        async with stop_on_disconnect(request, stream):
            first = await stream.next()  # An error before the first text still has a status of its own.
        return EventStreamResponse(stream, events, first)

    async def generate(self, body: GenerateRequest, request: Request) -> Response:
        """Of five replies the one of median length, in GPTChat's schema. `response` is a forced beginning."""
        loaded = self._model(None)
        conversation = Conversation.from_turns([body.context])
        factory = partial(stream_reply, loaded, ReplyRequest(conversation, GENERATE_SAMPLING, body.response or ""))
        texts = [
            one.end.text for one in await self._collect_replies(request, [factory] * SAMPLES) if one.end is not None
        ]
        description = loaded.description
        about = {
            "name": public_name(loaded),
            "format": description.format,
            "parameters": description.parameters,
            "window": description.window or None,
        }
        chosen = sorted(texts, key=len)[len(texts) // 2]
        return JSONResponse({"response": chosen, "request": body.model_dump(), "model_info": about})

    def _model(self, name: str | None) -> ReplyBackend:
        loaded = self._services.find_backend()
        if loaded is None:
            what = "The model is being loaded." if self._is_loading() else "No model is loaded."
            raise BusyError(what, advice="Try again in a moment." if self._is_loading() else "Choose one on the page.")
        if name not in (None, "", DEFAULT_MODEL, loaded.name, public_name(loaded)):
            raise ModelNotFoundError(
                f"The model '{str(name)[:200]}' is not in use here.", advice=f"Ask for '{public_name(loaded)}'."
            )
        return loaded

    def _quote(self, loaded: ReplyBackend, asked: QuoteMode | None) -> ReplyBackend:
        """The model, in front of it the list that it was taught where the request or the server wants that.

        Raises:
            SettingError: the model has no such list, or a stranger asks for it where the server was not started so.
        """
        rules = self._services.rules
        mode = rules.answers if asked is None else asked
        if mode == "off":
            return loaded
        if rules.is_shared and rules.answers == "off":
            raise SettingError(
                "answer_from_list", "This server does not quote from its list.", advice="It wants `serve --answers`."
            )
        answers = self._services.answers.find(loaded.name)
        if answers is None and asked is not None:
            raise SettingError(
                "answer_from_list", f"'{public_name(loaded)}' has no list of answers: it was not trained here."
            )
        return loaded if answers is None else QuotingBackend(loaded, answers, mode)

    async def _collect_replies(
        self, request: Request, factories: Sequence[ReplyFactory], with_tokens: bool = False
    ) -> list[CollectedReply]:
        """Finished replies, generated at the same time. If the client disconnects, they stop."""
        stream: ThreadToAsyncStream[TextDelta | ReplyEnd] = self.streams.start(_share_prefill(factories))
        written = [CollectedReply([] if with_tokens else None) for _ in factories]
        async with stop_on_disconnect(request, stream):
            for number, item in await stream.all():
                written[number].add(item)
        if any(one.end is None for one in written):
            # Only a log shows this: the client disconnected, or the server shuts down.
            raise BusyError("The reply was stopped.")
        return written


def _share_prefill(factories: Sequence[ReplyFactory]) -> list[ReplyFactory]:
    """Let replies to one prompt share its prefill: the others start once the first has a token."""
    prefilled = threading.Event()

    def first(stopped: threading.Event) -> Generator[TextDelta | ReplyEnd, None, None]:
        try:
            with contextlib.closing(factories[0](stopped)) as items:
                for item in items:
                    prefilled.set()
                    yield item
        finally:
            prefilled.set()

    def later(factory: ReplyFactory, stopped: threading.Event) -> Generator[TextDelta | ReplyEnd, None, None]:
        while not prefilled.wait(_POLL_SECONDS):
            if stopped.is_set():
                return
        yield from factory(stopped)

    return [first, *(partial(later, factory) for factory in factories[1:])]


def _describe_model(name: str, window: int) -> dict[str, Any]:
    """A model of the list. The context window is named as in vLLM; OpenAI's schema has no field for it."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "chat_app", "max_model_len": window or None}


def public_name(loaded: ReplyBackend) -> str:
    """The name of a model as programs see it: of a folder only its last component."""
    is_folder = loaded.description.kind == "folder"
    return (Path(loaded.name).name if is_folder else "") or loaded.name or DEFAULT_MODEL


def _error_response(status: int, message: str, *, param: str | None = None, code: str | None = None) -> JSONResponse:
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return JSONResponse(error_body(message, kind, param=param, code=code), status)


async def _answer_unknown_path(request: Request) -> Response:
    """404 for a path under /v1 that is no route: Gradio's page must not answer it."""
    return _error_response(404, f"There is no {request.method} {request.url.path[:200]} here.", code="unknown_url")


async def _handle_chat_app_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ChatAppError)
    if isinstance(error, ModelNotFoundError):
        return _error_response(404, error.sentence(), param="model", code="model_not_found")
    field = error.field if isinstance(error, SettingError) else None
    field = _API_NAMES.get(field, field) if field else None
    response = _error_response(error.http_status, error.sentence(), param=field)
    if isinstance(error, AuthenticationError):
        response.headers["www-authenticate"] = 'Basic realm="chat_app"'
    if isinstance(error, TooManyAttemptsError):
        response.headers["retry-after"] = str(int(error.seconds) + 1)
    return response


async def _handle_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    message, field = explain(error.errors())
    return _error_response(400, message, param=field)


async def _handle_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _error_response(error.status_code, str(error.detail))
    response.headers.update(error.headers or {})
    return response


async def _handle_unexpected_error(request: Request, error: Exception) -> Response:
    # Starlette raises the error again afterwards, so that the server logs it.
    return _error_response(500, "Something went wrong on the server.")


DOCS = "/docs"
_FILES = f"{DOCS}/files"
# Swagger UI would send the description to a validator on the web.
_SETTINGS = {"validatorUrl": None, "tryItOutEnabled": True, "displayRequestDuration": True}


def add_docs(app: FastAPI) -> None:
    """Add Swagger UI, from local files, to an application made with `docs_url=None`."""
    app.mount(_FILES, StaticFiles(packages=[("fastapi_swagger", "resources")]), name="docs")

    def docs() -> HTMLResponse:
        # Relative URLs hold behind a reverse proxy with a path prefix.
        files = _FILES.lstrip("/")
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{app.title}: HTTP API",
            swagger_js_url=f"{files}/swagger-ui-bundle.js",
            swagger_css_url=f"{files}/swagger-ui.css",
            swagger_favicon_url=f"{files}/favicon-32x32.png",
            swagger_ui_parameters=_SETTINGS,
        )

    app.add_api_route(DOCS, docs, include_in_schema=False)
