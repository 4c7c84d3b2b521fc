"""The application behind the server's port: the guard, the HTTP API, and the page at "/".

Puts them together; what each answers or shows stands in its own file.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

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
from chat_app.accounts import Accounts, Throttle, TooManyTries
from chat_app.api import Api
from chat_app.api_docs import add_docs
from chat_app.gradio_internals import HEAD, is_logged_in, keep_sessions, mounted_page
from chat_app.guard import Callers, Guard, Quota
from chat_app.services import Services
from chat_app.ui.live import LiveReplies
from chat_app.ui.page import build_page
from chat_app.ui.theme import TITLE, page_arguments

WORKER_THREADS = 120  # For what Gradio runs: replies under way must leave some for Stop.
SESSIONS_KEPT = 1000
UPLOAD_HOURS = 6
FRAMES = Path(__file__).parent / "ui" / "frames.js"
_LOG_IN = "After five wrong tries you have to wait before the next one is looked at."


def build_app(
    services: Services,
    accounts: Accounts,
    throttle: Throttle,
    callers: Callers,
    is_loading: Callable[[], bool],
    page: gr.Blocks | None = None,
) -> tuple[FastAPI, Api]:
    """The application: guard, HTTP API, and the page at "/".

    Args:
        accounts: who may come in.
        throttle: the one that the accounts count with.
        callers: whom the guard knows.
        is_loading: whether the first model is still on its way.
        page: to be mounted; default: the product's.
    """
    rules = services.rules
    app = FastAPI(title=TITLE, version=__version__, docs_url=None, redoc_url=None, lifespan=_with_threads)
    api = Api(services, accounts, is_loading)
    api.add_to(app)
    add_docs(app)
    # Gradio leaves CORS to this one; without origins it lets nobody in.
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
        auth=_log_in_with(accounts) if needs_log_in else None,
        auth_message=_LOG_IN if needs_log_in else None,
        max_file_size=rules.upload_limit,
        **page_arguments(),
    )
    mounted = mounted_page(app)
    # As the innermost, so that what it is given is not compressed yet.
    mounted.user_middleware.append(Middleware(FirstScript, script=FRAMES.read_text(encoding="utf-8")))
    log_in_check = _log_in_check(mounted) if needs_log_in else None
    quota = Quota(3 * rules.upload_limit, 20 * rules.upload_limit, UPLOAD_HOURS * 3600) if rules.is_shared else None
    app.add_middleware(
        Guard, rules=rules, callers=callers, throttle=throttle, quota=quota, is_logged_in=log_in_check
    )  # The last one added is asked first.
    return app, api


@asynccontextmanager
async def _with_threads(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = WORKER_THREADS
    yield


def _log_in_with(accounts: Accounts) -> Callable[[str, str], bool]:
    """What Gradio's page for logging in asks."""

    def log_in(name: str, password: str) -> bool:
        try:
            return accounts.log_in(name, password)
        except TooManyTries as error:
            wait = {"Retry-After": str(int(error.seconds) + 1)}
            raise HTTPException(error.http_status, error.sentence(), headers=wait) from error

    return log_in


class FirstScript:
    """Puts a script before all others into the page; what Gradio calls the head of a page comes after its own scripts.

    Args:
        app: what answers.
        script: classic JavaScript.
    """

    def __init__(self, app: ASGIApp, script: str):
        self._app = app
        self._mark, self._head = HEAD.encode(), f"{HEAD}\n<script>\n{script}</script>".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; what is no page stays as it is."""
        start: Message | None = None

        async def changed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                if Headers(raw=message["headers"]).get("content-type", "").startswith("text/html"):
                    start = message
                    return
            elif start is not None:  # Gradio gives a page in one piece.
                body = message.get("body", b"")
                message["body"] = body.replace(self._mark, self._head, 1)
                headers = MutableHeaders(raw=start["headers"])
                if "content-length" in headers:
                    longer = len(message["body"]) - len(body)
                    headers["content-length"] = str(int(headers["content-length"]) + longer)
                await send(start)
                start = None
            await send(message)

        await self._app(scope, receive, changed)


def _log_in_check(mounted: App) -> Callable[[Headers], bool]:
    """Whether a request comes from a page that is logged in, told by Gradio's cookie."""

    def check(headers: Headers) -> bool:
        return is_logged_in(mounted, cookie_parser(headers.get("cookie", "")))

    return check
