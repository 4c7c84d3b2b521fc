"""ASGI middleware that refuses requests by their Host, Origin, size and number of failed log-ins.

It knows addresses, headers and sizes; nothing of conversations, models or the page. It is the outermost middleware, so
a refused request costs no further work.
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

from chat_app.config.server import ServerRules
from chat_app.formatting import format_bytes
from chat_app.server.auth import Throttle
from chat_app.server.host_policy import HostPolicy
from chat_app.server.openai_schema import error_body
from chat_app.server.security_headers import docs_policy, security_headers
from chat_app.server.upload_quota import Upload, UploadQuota

API_PATHS = ("/v1/", "/generate", "/health")
LOGIN_PATHS = ("/login", "/login/")
UPLOAD_PATH = "/gradio_api/upload"
MAX_BODY_BYTES = 4 * 2**20
MAX_FILES_PER_REQUEST = 20
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
class _LimitedReceive:
    """An ASGI `receive` that raises 413 once the body passes its limits."""

    receive: Receive
    max_bytes: int
    max_files: int | None
    received: int = 0
    files: int = 0
    is_too_large: bool = False
    _tail: bytes = field(default=b"\r\n")

    async def __call__(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.request":
            chunk = message.get("body", b"")
            self.received += len(chunk)
            if self.max_files is not None:
                self._count_files(chunk)
            if self.received > self.max_bytes or self.files > (self.max_files or self.files):
                self.is_too_large = True
                raise HTTPException(413, "This is more than this server takes.")
        return message

    def _count_files(self, chunk: bytes) -> None:
        text = self._tail + chunk.lower()
        self.files += text.count(_FILE_HEADER)
        self._tail = text[-len(_FILE_HEADER) + 1 :]


@dataclass
class _HeaderSend:
    """An ASGI `send` that adds the security headers and knows how far the response has come."""

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
        """End the response where it is."""
        if not self.has_begun:
            await self({"type": "http.response.start", "status": 503, "headers": []})
        if not self.is_whole:
            # A response with a declared length cannot end early; its reader notices.
            with contextlib.suppress(Exception):
                await self({"type": "http.response.body", "body": b"", "more_body": False})


class Guard:
    """The middleware.

    Args:
        app: the application that it guards.
        rules: limits of the server.
        host_policy: accepted Host and Origin headers.
        throttle: counts failed log-ins.
        quota: of uploads, or None where the server is on the user's own computer.
        is_logged_in: tells from the headers whether a request carries a valid log-in; None where none is needed.
    """

    def __init__(
        self,
        app: ASGIApp,
        rules: ServerRules,
        host_policy: HostPolicy,
        throttle: Throttle,
        quota: UploadQuota | None = None,
        is_logged_in: Callable[[Headers], bool] | None = None,
    ):
        self._app, self._host_policy, self._throttle, self._quota = app, host_policy, throttle, quota
        self._upload_bytes = rules.upload_limit
        self._is_logged_in = is_logged_in
        self._page_headers = security_headers(rules, host_policy.origins)
        self._docs_headers = {**self._page_headers, "content-security-policy": docs_policy(rules, host_policy.origins)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":  # No route uses web sockets.
            return await send({"type": "websocket.close", "code": 1008})
        answer = _HeaderSend(send, self._docs_headers if scope["path"].startswith("/docs") else self._page_headers)
        try:
            await self._handle(scope, receive, answer)
        except asyncio.CancelledError:  # The server shuts down: event streams end in order.
            await answer.cut_off()

    async def _handle(self, scope: Scope, receive: Receive, answer: _HeaderSend) -> None:
        headers = Headers(scope=scope)
        status, sentence = self._find_refusal(scope, headers)
        if status:
            return await _refuse(scope, receive, answer, status, sentence)
        scope = {**scope, "headers": self._strip_untrusted_headers(scope["headers"], headers)}
        if scope["path"] in LOGIN_PATHS and scope["method"] == "POST":
            return await self._log_in(scope, receive, answer)
        return await self._limit_body(scope, receive, answer, headers)

    def _find_refusal(self, scope: Scope, headers: Headers) -> tuple[int, str]:
        """The status and reason that refuse a request by its headers alone; (0, "") to accept it."""
        if not self._host_policy.accepts_host(headers.get("host")):
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
        if origin is not None and not self._host_policy.accepts_origin(origin, headers.get("host")):
            return 403, "Other pages may not send anything to this server. Start it with --allow-origin to allow one."
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return 400, "The length of the request is no number."
        if int(length) > self._body_limit(scope):
            return 413, f"This is more than this server takes ({format_bytes(self._body_limit(scope))})."
        return 0, ""

    def _body_limit(self, scope: Scope) -> int:
        if scope["path"].startswith(UPLOAD_PATH):
            return self._upload_bytes + 2**16  # The names of files and what stands between them.
        return min(MAX_BODY_BYTES, self._upload_bytes)

    def _strip_untrusted_headers(
        self, raw: Iterable[tuple[bytes, bytes]], headers: Headers
    ) -> list[tuple[bytes, bytes]]:
        """Drop headers by which a client would choose the addresses in Gradio's page."""
        dropped = {b"x-gradio-server"}
        if not self._host_policy.accepts_host(headers.get("x-forwarded-host")):
            dropped.add(b"x-forwarded-host")
        return [(name, value) for name, value in raw if name.lower() not in dropped]

    async def _log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a log-in on unless its address failed too often."""
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

        await self._app(scope, _LimitedReceive(receive, 2**16, None), counted)

    async def _limit_body(self, scope: Scope, receive: Receive, answer: _HeaderSend, headers: Headers) -> None:
        """Pass a request on with its body limited and its upload counted."""
        most, is_upload = self._body_limit(scope), scope["path"].startswith(UPLOAD_PATH) and scope["method"] == "POST"
        body = _LimitedReceive(receive, most, MAX_FILES_PER_REQUEST if is_upload else None)
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
    """Respond without calling the application.

    The rest of the request body is read and dropped for a few seconds: closing at once would reset the connection, and
    the response could be lost.
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
