"""Builds the FastAPI application: the guard, the HTTP API, and Gradio's page at "/".

What each of them answers or shows is in its own file.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio.to_thread
import gradio as gr
from fastapi import FastAPI, HTTPException
from gradio.routes import App
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chat_app import __version__
from chat_app.server.auth import Accounts, Throttle, TooManyAttemptsError
from chat_app.server.guard import Guard
from chat_app.server.host_policy import HostPolicy
from chat_app.server.openai_api import Api, add_docs
from chat_app.server.upload_quota import UploadQuota
from chat_app.services import Services
from chat_app.system.installation import PACKAGE
from chat_app.ui.chat.streaming import LiveReplies
from chat_app.ui.components.gradio_internals import HEAD, is_logged_in, keep_sessions, mounted_page
from chat_app.ui.components.theme import TITLE, page_arguments
from chat_app.ui.page import build_page

WORKER_THREADS = 120  # Gradio's handlers run in these: running replies must leave some for Stop.
SESSIONS_KEPT = 1000
UPLOAD_HOURS = 6
FRAMES = PACKAGE / "ui" / "frames.js"
_LOG_IN = "After five wrong tries you have to wait before the next one is looked at."


def build_app(
    services: Services,
    accounts: Accounts,
    throttle: Throttle,
    host_policy: HostPolicy,
    is_loading: Callable[[], bool],
    page: gr.Blocks | None = None,
) -> tuple[FastAPI, Api]:
    """The application: guard, HTTP API, and the page at "/".

    Args:
        accounts: who may log in.
        throttle: the throttle that `accounts` uses.
        host_policy: Host and Origin headers that the guard accepts.
        is_loading: whether the first model is still being loaded.
        page: the Blocks to mount; default: `build_page`.
    """
    rules = services.rules
    app = FastAPI(title=TITLE, version=__version__, docs_url=None, redoc_url=None, lifespan=_set_thread_limit)
    api = Api(services, accounts, is_loading)
    api.add_to(app)
    add_docs(app)
    # Gradio adds no CORS headers of its own when mounted; without allowed origins no other page may read responses.
    headers = ["Authorization", "Content-Type"]
    app.add_middleware(CORSMiddleware, allow_origins=rules.origins, allow_methods=["*"], allow_headers=headers)
    live = LiveReplies()
    live.add_to(app)
    blocks = page if page is not None else build_page(services, live)
    keep_sessions(blocks, SESSIONS_KEPT)
    needs_log_in = not accounts.is_page_open
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=rules.host,
        server_port=rules.port,
        auth=_make_login(accounts) if needs_log_in else None,
        auth_message=_LOG_IN if needs_log_in else None,
        max_file_size=rules.upload_limit,
        **page_arguments(),
    )
    mounted = mounted_page(app)
    # The innermost middleware sees bodies before they are compressed.
    mounted.user_middleware.append(Middleware(HeadScriptMiddleware, script=FRAMES.read_text(encoding="utf-8")))
    login_check = _make_login_check(mounted) if needs_log_in else None
    limit = rules.upload_limit
    quota = UploadQuota(3 * limit, 20 * limit, UPLOAD_HOURS * 3600) if rules.is_shared else None
    app.add_middleware(
        Guard, rules=rules, host_policy=host_policy, throttle=throttle, quota=quota, is_logged_in=login_check
    )  # The last one added is asked first.
    return app, api


@asynccontextmanager
async def _set_thread_limit(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = WORKER_THREADS
    yield


def _make_login(accounts: Accounts) -> Callable[[str, str], bool]:
    """The callback of Gradio's log-in page."""

    def log_in(name: str, password: str) -> bool:
        try:
            return accounts.log_in(name, password)
        except TooManyAttemptsError as error:
            wait = {"Retry-After": str(int(error.seconds) + 1)}
            raise HTTPException(error.http_status, error.sentence(), headers=wait) from error

    return log_in


class HeadScriptMiddleware:
    """Inserts a script at the beginning of the page's <head>; Gradio's own `head` option inserts after its scripts.

    Args:
        app: the wrapped application.
        script: classic JavaScript.
    """

    def __init__(self, app: ASGIApp, script: str):
        self._app = app
        self._mark, self._head = HEAD.encode(), f"{HEAD}\n<script>\n{script}</script>".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; responses other than HTML pass unchanged."""
        start: Message | None = None

        async def insert_script(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                if Headers(raw=message["headers"]).get("content-type", "").startswith("text/html"):
                    start = message
                    return
            elif start is not None:  # Gradio sends a page as one body message.
                body = message.get("body", b"")
                message["body"] = body.replace(self._mark, self._head, 1)
                headers = MutableHeaders(raw=start["headers"])
                if "content-length" in headers:
                    longer = len(message["body"]) - len(body)
                    headers["content-length"] = str(int(headers["content-length"]) + longer)
                await send(start)
                start = None
            await send(message)

        await self._app(scope, receive, insert_script)


def _make_login_check(mounted: App) -> Callable[[Headers], bool]:
    """A check of Gradio's log-in cookie; some of Gradio's routes do not check it themselves."""

    def check(headers: Headers) -> bool:
        return is_logged_in(mounted, cookie_parser(headers.get("cookie", "")))

    return check
