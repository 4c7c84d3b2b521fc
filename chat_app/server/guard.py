"""Who may call this server, how much they may send, and how often they may try a password.

Knows addresses, headers and sizes; nothing of conversations, models or what the page shows. `Guard` stands before
everything else that answers, so what it refuses costs nobody anything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chat_app.formatting import bytes_in_words
from chat_app.server.auth import Throttle
from chat_app.server.callers import Callers
from chat_app.server.openai_schema import error_body
from chat_app.server.security_headers import docs_policy, security_headers
from chat_app.server.upload_quota import Quota, Upload
from chat_app.services import ServerRules

API_PATHS = ("/v1/", "/generate", "/health")
LOGIN_PATHS = ("/login", "/login/")
UPLOAD_PATH = "/gradio_api/upload"
BODY_BYTES = 4 * 2**20
FILES_A_REQUEST = 20
READING_METHODS = ("GET", "HEAD", "OPTIONS")
# Parts of Gradio that this product does not use: foreign Spaces, states on disk, an editor, statistics.
CLOSED_PATHS = (
    "/gradio_api/proxy=",
    "/gradio_api/deep_link",
    "/gradio_api/dev",
    "/gradio_api/vibe-",
    "/gradio_api/undo-vibe",
    "/gradio_api/run-history",
    "/gradio_api/process_recording",
    "/gradio_api/profiling",
    "/monitoring",
)
# What Gradio's page for logging in needs; the rest of its API is for those who did, also where Gradio does not ask.
_BEFORE_LOG_IN = tuple(
    f"/gradio_api/{name}" for name in ("app_id", "login_check", "startup-events", "theme.css", "user")
)
_FILE_HEADER = b"\r\ncontent-disposition:"
_DRAIN_SECONDS = 5.0


@dataclass
class _Body:
    """Reads a request's body and stops at its limits."""

    receive: Receive
    most_bytes: int
    most_files: int | None
    received: int = 0
    files: int = 0
    is_too_large: bool = False
    _tail: bytes = field(default=b"\r\n")

    async def __call__(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.request":
            chunk = message.get("body", b"")
            self.received += len(chunk)
            if self.most_files is not None:
                self._count_files(chunk)
            if self.received > self.most_bytes or self.files > (self.most_files or self.files):
                self.is_too_large = True
                raise HTTPException(413, "This is more than this server takes.")
        return message

    def _count_files(self, chunk: bytes) -> None:
        text = self._tail + chunk.lower()
        self.files += text.count(_FILE_HEADER)
        self._tail = text[-len(_FILE_HEADER) + 1 :]


@dataclass
class _Answer:
    """Sends an answer with the headers that tell a browser to be careful."""

    send: Send
    headers: Mapping[str, str]
    has_begun: bool = False
    is_whole: bool = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = MutableHeaders(scope=message)
            for name, value in self.headers.items():
                headers[name] = value
        elif message["type"] == "http.response.body":
            self.is_whole = not message.get("more_body", False)
        await self.send(message)

    async def cut_off(self) -> None:
        """End it where it is."""
        if not self.has_begun:
            await self({"type": "http.response.start", "status": 503, "headers": []})
        if not self.is_whole:
            with contextlib.suppress(
                Exception
            ):  # An answer whose length was told cannot end early; its reader sees it.
                await self({"type": "http.response.body", "body": b"", "more_body": False})


class Guard:
    """Stands before an application and refuses what it should not see.

    Args:
        app: what is guarded.
        rules: of the server.
        callers: whom it knows.
        throttle: counts wrong log-ins.
        quota: of uploads, or None for one's own computer.
        is_logged_in: whether the headers of a request come from somebody logged in; None where nobody has to.
    """

    def __init__(
        self,
        app: ASGIApp,
        rules: ServerRules,
        callers: Callers,
        throttle: Throttle,
        quota: Quota | None = None,
        is_logged_in: Callable[[Headers], bool] | None = None,
    ):
        self._app, self._callers, self._throttle, self._quota = app, callers, throttle, quota
        self._upload_bytes = rules.upload_limit
        self._is_logged_in = is_logged_in
        self._page_headers = security_headers(rules, callers.origins)
        self._docs_headers = {**self._page_headers, "content-security-policy": docs_policy(rules, callers.origins)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":  # Nothing here speaks over a web socket.
            return await send({"type": "websocket.close", "code": 1008})
        answer = _Answer(send, self._docs_headers if scope["path"].startswith("/docs") else self._page_headers)
        try:
            await self._answered(scope, receive, answer)
        except asyncio.CancelledError:  # The server ends; what is still being sent, such as events, ends in order.
            await answer.cut_off()

    async def _answered(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers = Headers(scope=scope)
        status, sentence = self._refusal(scope, headers)
        if status:
            return await _refuse(scope, receive, answer, status, sentence)
        scope = {**scope, "headers": self._trusted(scope["headers"], headers)}
        if scope["path"] in LOGIN_PATHS and scope["method"] == "POST":
            return await self._log_in(scope, receive, answer)
        return await self._measured(scope, receive, answer, headers)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str]:
        """The status and the reason to refuse a request for its head alone; status 0: none."""
        if not self._callers.accepts_host(headers.get("host")):
            return 400, "This server is not known under that name. Start it with --allow-origin to add one."
        path = "/" + scope["path"].lstrip("/")
        if path.startswith(CLOSED_PATHS):
            return 404, "There is nothing here."
        is_open = not path.startswith("/gradio_api/") or path.startswith(_BEFORE_LOG_IN)
        if self._is_logged_in and not is_open and not self._is_logged_in(headers):
            return 401, "Log in first."
        if scope["method"] in READING_METHODS:
            return 0, ""
        origin = headers.get("origin")
        if origin is not None and not self._callers.accepts_origin(origin, headers.get("host")):
            return 403, "Other pages may not send anything to this server. Start it with --allow-origin to allow one."
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return 400, "The length of the request is no number."
        if int(length) > self._most_bytes(scope):
            return 413, f"This is more than this server takes ({bytes_in_words(self._most_bytes(scope))})."
        return 0, ""

    def _most_bytes(self, scope: Scope) -> int:
        if scope["path"].startswith(UPLOAD_PATH):
            return self._upload_bytes + 2**16  # The names of files and what stands between them.
        return min(BODY_BYTES, self._upload_bytes)

    def _trusted(self, raw: Iterable[tuple[bytes, bytes]], headers: Headers) -> list[tuple[bytes, bytes]]:
        """The headers without those that would let a caller choose the addresses that the page is told."""
        dropped = {b"x-gradio-server"}
        if not self._callers.accepts_host(headers.get("x-forwarded-host")):
            dropped.add(b"x-forwarded-host")
        return [(name, value) for name, value in raw if name.lower() not in dropped]

    async def _log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a log-in through unless its address failed too often."""
        address = _address(scope)
        wait = self._throttle.wait(address)
        if wait > 0:
            return await _refuse(scope, receive, send, 429, f"Too many wrong tries. Wait {wait:.0f} s.", wait)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == 400:
                    self._throttle.failed(address)
                elif message["status"] == 200:
                    self._throttle.succeeded(address)
            await send(message)

        await self._app(scope, _Body(receive, 2**16, None), counted)

    async def _measured(self, scope: Scope, receive: Receive, answer: _Answer, headers: Headers) -> None:
        """Let a request through that may send no more than its limit."""
        most, is_upload = self._most_bytes(scope), scope["path"].startswith(UPLOAD_PATH) and scope["method"] == "POST"
        body = _Body(receive, most, FILES_A_REQUEST if is_upload else None)
        place: Upload | None = None
        if is_upload and self._quota is not None:
            place = self._quota.reserve(_address(scope), int(headers.get("content-length", most)))
            if place is None:
                return await _refuse(scope, receive, answer, 413, "Too much was uploaded. Try again in a few hours.")
        try:
            await self._app(scope, body, answer)
        except HTTPException:
            if answer.has_begun or not body.is_too_large:
                raise
            await _refuse(scope, receive, answer, 413, "This is more than this server takes.")
        finally:
            if place is not None and self._quota is not None:
                self._quota.settle(place, body.received)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


async def _refuse(
    scope: Scope, receive: Receive, send: Send, status: int, sentence: str, wait: float | None = None
) -> None:
    """Answer without asking the application. What the caller still sends is thrown away for a few seconds: closing at
    once would reset the connection, and the answer might be lost.
    """
    response: Response
    if scope["path"].startswith(API_PATHS):
        response = JSONResponse(error_body(sentence, "invalid_request_error"), status)
    else:
        response = PlainTextResponse(sentence, status)
    if wait is not None:
        response.headers["retry-after"] = str(int(wait) + 1)
    response.headers["connection"] = "close"
    await send({"type": "http.response.start", "status": status, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": bytes(response.body), "more_body": True})
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_drain(receive), _DRAIN_SECONDS)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
