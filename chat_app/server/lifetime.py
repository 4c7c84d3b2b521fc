"""The running server: it loads the first model while the page is built, answers requests, and shuts down in order."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from chat_app.config.server import LOOPBACK, ServerRules
from chat_app.errors import ChatAppError
from chat_app.server.flags import ANY_ADDRESS
from chat_app.services import Services

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI


MAX_CONNECTIONS = 1000  # An open page holds two or three.
KEEP_ALIVE_SECONDS = 10
GRACE_SECONDS = 2
LOADING_THREADS = ("first model", "closing")  # Threads that may take long to end.


class FirstModel:
    """Loads the first model in a thread, from now on.

    Args:
        services: know which model that is.
    """

    def __init__(self, services: Services):
        self._services = services
        self._problem: ChatAppError | None = None
        self._thread = threading.Thread(target=self._load, name=LOADING_THREADS[0], daemon=True)
        self._thread.start()

    @property
    def is_loading(self) -> bool:
        """Whether it is still being loaded."""
        return self._thread.is_alive()

    def wait(self) -> ChatAppError | None:
        """Wait until it is loaded. Returns the error if it cannot be."""
        self._thread.join()
        return self._problem

    def _load(self) -> None:
        try:
            self._services.load_first_model()
        except ChatAppError as error:
            self._problem = error
        except Exception as error:  # The thread's edge.
            self._problem = ChatAppError(f"The model cannot be loaded ({type(error).__name__}: {error}).")


class RunningServer:
    """A server from start-up to shutdown.

    Args:
        first_model: is being loaded.
        listening: the socket to answer on.
        must_load: whether the server ends if the first model cannot be loaded.
    """

    def __init__(
        self,
        services: Services,
        first_model: FirstModel,
        passwords: dict[str, str],
        listening: socket.socket,
        must_load: bool,
    ):
        from chat_app.server.app import build_app
        from chat_app.server.auth import KEY_VARIABLE, Accounts, Throttle
        from chat_app.server.host_policy import HostPolicy

        self._services, self._first_model = services, first_model
        self._listening, self._must_load = listening, must_load
        self._port = int(listening.getsockname()[1])
        self._answers = threading.Event()
        self._starter = threading.Thread(target=self._announce, name="announcement", daemon=True)
        self._exit_code = 0
        self._host_policy = HostPolicy(services.rules)
        throttle = Throttle()
        accounts = Accounts(passwords, os.environ.get(KEY_VARIABLE), throttle)
        app, self._api = build_app(services, accounts, throttle, self._host_policy, lambda: first_model.is_loading)
        self._server = _make_server(app, services.rules, self._answers.set, self._end_replies)
        gc.freeze()  # The page and the libraries stay: looking through them for garbage takes a quarter of a second.

    def run(self) -> int:
        """Serve until shutdown. Returns the exit code."""
        self._starter.start()
        with contextlib.suppress(KeyboardInterrupt):  # What uvicorn raises again after it has ended in order.
            self._server.run(sockets=[self._listening])
        return self._exit_code

    def _announce(self) -> None:
        """Print the ready line once the server answers and the first model is loaded."""
        self._answers.wait()
        problem = self._first_model.wait()
        if self._server.should_exit:  # Asked to end meanwhile: that the load was cancelled is no news.
            return
        if problem is not None:
            print(f"chat_app: {problem.sentence()}", file=sys.stderr, flush=True)
            if self._must_load:
                self._exit_code, self._server.should_exit = problem.exit_code, True
        if self._server.should_exit:
            return
        state = "is ready" if problem is None else "has no model yet; choose one on the page"
        if self._services.remote is not None:
            state = "is ready" if problem is None else "is there, its engine is not yet"
        print(f"chat_app {state}: {format_url(self._services.rules.host, self._port)}", flush=True)
        if self._services.rules.share:
            self._share()

    def _share(self) -> None:
        from chat_app.ui.components.gradio_internals import open_tunnel

        try:
            link = open_tunnel(LOOPBACK[0], self._port)
        except Exception as error:  # A download, a certificate and a foreign program: anything may fail.
            print(f"chat_app: there is no public link ({error}).", file=sys.stderr, flush=True)
            return
        self._host_policy.add_host(link.split("://")[-1].split("/")[0])
        print(f"chat_app is public: {link}", flush=True)

    def _end_replies(self) -> None:
        """Stop all running replies at shutdown."""
        self._api.streams.stop_all()
        self._services.end_replies()


def _make_server(app: FastAPI, rules: ServerRules, when_answering: Callable[[], None], when_ending: Any) -> Any:
    import asyncio

    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            when_answering()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            when_ending()
            tasks = set(self.server_state.tasks)
            if tasks:  # Pages that are open hold a request each; uvicorn would complain about them.
                await asyncio.wait(tasks, timeout=GRACE_SECONDS)
                for task in tasks:
                    task.cancel()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        ws="none",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        # A Space is reached through its proxy only, which says who calls.
        forwarded_allow_ips="*" if rules.on_space else LOOPBACK[0],
    )
    return Server(config)


def format_url(host: str, port: int) -> str:
    shown = LOOPBACK[0] if host in (ANY_ADDRESS, "::") else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
