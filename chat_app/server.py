"""The server: its flags, and its life from start to end. What answers behind its port is put together in `web`.

Everything heavy is imported when a server starts, so that the flags can be read in a moment.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chat_app.config import STARTER, Paths
from chat_app.errors import ChatAppError, SettingError, UserError
from chat_app.services import LOOPBACK, ServerRules, Services

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI

    from chat_app.remote import RemoteModel

DEFAULT_PORT = 7860
MOST_UPLOAD_MB = 10**6
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - on a Space only, where nothing else can reach it.
MOST_CONNECTIONS = 1000  # An open page holds two or three.
KEEP_ALIVE_SECONDS = 10
SECONDS_TO_ANSWER_THE_REST = 2
SECONDS_TO_END = 30
_LOADING = ("first model", "closing")  # Threads that may take long to end.
_ORIGIN = re.compile(r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?/?")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Tell a parser about the flags of the server."""
    host = ANY_ADDRESS if os.environ.get("SPACE_ID") else LOOPBACK[0]
    parser.add_argument("--host", default=host, metavar="H", help=f"the address to listen on (default: {host})")
    parser.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        metavar="P",
        help=f"the port to listen on; 0 takes a free one (default: {DEFAULT_PORT})",
    )
    parser.add_argument(
        "--model",
        metavar="M",
        help=f"the model to begin with: starter, a run, a folder, or a name on the Hub (default: {STARTER}); "
        "with --engine its name there (default: the first it lists)",
    )
    parser.add_argument(
        "--engine",
        metavar="URL",
        help="let another server answer, one that speaks OpenAI's chat completions, as in http://127.0.0.1:8000/v1; "
        "a key for it goes into the environment's CHAT_APP_ENGINE_KEY",
    )
    parser.add_argument("--share", action="store_true", help="make a public link; wants --auth-file")
    parser.add_argument(
        "--auth-file", type=Path, metavar="F", help="who may come in: a file with one name:password a line"
    )
    parser.add_argument(
        "--max-upload",
        type=float,
        default=0,
        metavar="MB",
        help="the largest file that can be uploaded, in MB (default: 5000, and 200 where others may come)",
    )
    parser.add_argument("--no-training", action="store_true", help="nobody can train here")
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="URL",
        help="another address of this server, or a page that may call it, as in https://chat.example.org",
    )


def rules_of(options: argparse.Namespace) -> ServerRules:
    """The rules that the flags ask for.

    Raises:
        SettingError: a value that cannot be, or a server open to others without an auth file.
    """
    if not 0 <= options.port <= 65535:
        raise SettingError("--port", f"{options.port} is no port.", advice="Give a number from 0 to 65535.")
    for origin in options.allow_origin:
        if _ORIGIN.fullmatch(origin) is None:
            raise SettingError("--allow-origin", f"'{origin}' is no address.", advice="Write https://chat.example.org.")
    rules = ServerRules(
        host=options.host.strip("[]"),
        port=options.port,
        auth_file=options.auth_file,
        training=not options.no_training,
        origins=tuple(origin.rstrip("/") for origin in options.allow_origin),
        share=options.share,
        upload_bytes=_bytes_of(options.max_upload),
    )
    if rules.auth_file is None and rules.host not in LOOPBACK and not rules.on_space:
        raise SettingError(
            "--host",
            f"Listening on {rules.host} lets in whoever reaches this computer: strangers could chat and train.",
            advice="Give --auth-file with a name:password a line, or leave --host out.",
        )
    if rules.auth_file is None and rules.share:
        raise SettingError(
            "--share",
            "A public link lets everybody in who has it.",
            advice="Give --auth-file with a name:password a line.",
        )
    return rules


def remote_of(options: argparse.Namespace) -> RemoteModel | None:
    """The model behind --engine.

    Raises:
        SettingError: that is no address.
    """
    if options.engine is None:
        return None
    from chat_app.remote import RemoteModel, check_address

    return RemoteModel(check_address(options.engine), options.model or "")


def _bytes_of(megabytes: float) -> int:
    if not 0 <= megabytes <= MOST_UPLOAD_MB:
        raise SettingError("--max-upload", f"{megabytes:g} is no size.", advice="Give megabytes, such as 500.")
    return round(megabytes * 10**6)


def serve(options: argparse.Namespace) -> int:
    """Run the server until somebody ends it.

    Returns:
        The exit code: 0, or that of the reason why the model asked for could not be loaded.

    Raises:
        ChatAppError: it cannot start.
    """
    from chat_app.accounts import read_passwords

    rules, remote = rules_of(options), remote_of(options)
    passwords = read_passwords(rules.auth_file) if rules.auth_file else {}
    for name, value in {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9),  # Else it counts again after every click, for nobody.
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
    }.items():
        os.environ[name] = value  # Read when these libraries are imported.
    # One way to end, whether asked from the keyboard or by the system, before and after uvicorn listens to it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    listening = _listen(rules.host, rules.port)
    _say_who_may_come(rules)
    try:
        services = Services(Paths.default(), rules, options.model or STARTER, remote)
        must_load = options.model is not None and remote is None  # Another server may still be starting.
        try:
            code = _Running(services, passwords, listening, must_load).run()
        finally:
            _close(services)
        _leave_at_once_if_still_busy(code)
        return code
    except KeyboardInterrupt:
        return 0
    finally:
        listening.close()


class _Running:
    """A server from its start to its end.

    Args:
        listening: the socket to answer on.
        must_load: whether the server ends if the first model cannot be loaded.
    """

    def __init__(self, services: Services, passwords: dict[str, str], listening: socket.socket, must_load: bool):
        from chat_app.accounts import KEY_VARIABLE, Accounts, Throttle
        from chat_app.guard import Callers
        from chat_app.web import build_app

        self._services, self._listening, self._must_load = services, listening, must_load
        self._port = int(listening.getsockname()[1])
        self._answers = threading.Event()
        self._loader = threading.Thread(target=self._start, name=_LOADING[0], daemon=True)
        self._is_loading = True
        self._exit_code = 0
        self._callers = Callers(services.rules)
        throttle = Throttle()
        accounts = Accounts(passwords, os.environ.get(KEY_VARIABLE), throttle)
        app, self._api = build_app(services, accounts, throttle, self._callers, lambda: self._is_loading)
        self._server = _make_server(app, services.rules, self._answers.set, self._end_replies)
        gc.freeze()  # The page and the libraries stay: looking through them for garbage takes a quarter of a second.

    def run(self) -> int:
        """Answer until the end. Returns the exit code."""
        self._loader.start()
        with contextlib.suppress(KeyboardInterrupt):  # What uvicorn raises again after it has ended in order.
            self._server.run(sockets=[self._listening])
        return self._exit_code

    def _start(self) -> None:
        """Load the first model once the server answers, and say when both are there."""
        self._answers.wait()
        problem = self._load()
        if problem is not None:
            print(f"chat_app: {problem.sentence()}", file=sys.stderr, flush=True)
            if self._must_load:
                self._exit_code, self._server.should_exit = problem.exit_code, True
        if self._server.should_exit:
            return
        state = "is ready" if problem is None else "has no model yet; choose one on the page"
        if self._services.remote is not None:
            state = "is ready" if problem is None else "is there, its engine is not yet"
        print(f"chat_app {state}: {_address(self._services.rules.host, self._port)}", flush=True)
        if self._services.rules.share:
            self._share()

    def _load(self) -> ChatAppError | None:
        """Load the first model. Returns what went wrong."""
        try:
            self._services.load_first_model()
        except ChatAppError as error:
            return error
        except Exception as error:  # The thread's edge.
            return ChatAppError(f"The model cannot be loaded ({type(error).__name__}: {error}).")
        finally:
            self._is_loading = False
        return None

    def _share(self) -> None:
        from chat_app.gradio_internals import open_tunnel

        try:
            link = open_tunnel(LOOPBACK[0], self._port)
        except Exception as error:  # A download, a certificate and a foreign program: anything may fail.
            print(f"chat_app: there is no public link ({error}).", file=sys.stderr, flush=True)
            return
        self._callers.add_host(link.split("://")[-1].split("/")[0])
        print(f"chat_app is public: {link}", flush=True)

    def _end_replies(self) -> None:
        """The server ends: nobody waits for the rest of a reply."""
        self._api.relays.stop_all()
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
                await asyncio.wait(tasks, timeout=SECONDS_TO_ANSWER_THE_REST)
                for task in tasks:
                    task.cancel()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        ws="none",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SECONDS_TO_ANSWER_THE_REST,
        # A Space is reached through its proxy only, which says who calls.
        forwarded_allow_ips="*" if rules.on_space else LOOPBACK[0],
    )
    return Server(config)


def _listen(host: str, port: int) -> socket.socket:
    """A socket on that port, bound before anything heavy is loaded.

    Raises:
        UserError: the port or the address cannot be had.
    """
    import errno
    import socket

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(f"There is no address '{host}' on this computer.", advice="Check --host.") from error
    listening = socket.socket(family, kind, protocol)
    # On Windows this option would let two programs share a port; there the exclusive one is right.
    option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
    listening.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        listening.bind(address)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            advice = f"End that program, or choose another port: --port {min(port + 1, 65535)}, or 0 for a free one."
            raise UserError(f"Another program uses port {port} already.", advice=advice) from error
        reason = f"Nothing can listen on {host}, port {port} ({error.strerror})."
        raise UserError(reason, advice="Choose another --host or --port.") from error
    return listening


def _address(host: str, port: int) -> str:
    shown = LOOPBACK[0] if host in (ANY_ADDRESS, "::") else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _say_who_may_come(rules: ServerRules) -> None:
    if rules.host not in LOOPBACK and not rules.on_space:
        print(
            f"chat_app: whoever reaches this computer on {rules.host} sees the page for logging in, and names and "
            "passwords travel unencrypted unless something in front of this server encrypts them.",
            file=sys.stderr,
            flush=True,
        )


def _close(services: Services) -> None:
    """End the training and give the model back. What hangs, such as a download, is left behind."""
    closing = threading.Thread(target=services.close, name=_LOADING[1], daemon=True)
    closing.start()
    closing.join(SECONDS_TO_END)


def _leave_at_once_if_still_busy(code: int) -> None:
    """A thread that still loads something would be torn apart by Python's own end, which can crash."""
    if any(thread.name in _LOADING for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
