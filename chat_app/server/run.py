"""The entry point of the server: it binds the port, builds the services, answers, and shuts down.

Everything heavy is imported when a server starts, so that the flags can be read in a moment.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from chat_app.config.paths import STARTER, Paths
from chat_app.config.server import LOOPBACK, ServerRules
from chat_app.errors import UserError
from chat_app.server.flags import make_remote, parse_rules
from chat_app.server.lifetime import LOADING_THREADS, FirstModel, RunningServer
from chat_app.services import Services

if TYPE_CHECKING:
    import socket


SHUTDOWN_SECONDS = 30


def serve(options: argparse.Namespace) -> int:
    """Run the server until it is interrupted or terminated.

    Returns:
        The exit code: 0, or that of the reason why the model asked for could not be loaded.

    Raises:
        ChatAppError: it cannot start.
    """
    from chat_app.server.auth import read_passwords

    rules, remote, paths = parse_rules(options), make_remote(options), Paths.default().make_home()
    passwords = read_passwords(rules.auth_file) if rules.auth_file else {}
    for name, value in {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9),  # Else it counts after every click, although nothing is sent.
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
    }.items():
        os.environ[name] = value  # Read when these libraries are imported.
    # One way to end, whether asked from the keyboard or by the system, before and after uvicorn listens to it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    listening = _bind_socket(rules.host, rules.port)
    _warn_if_exposed(rules)
    try:
        services = Services(paths, rules, options.model or STARTER, remote)
        must_load = options.model is not None and remote is None  # Another server may still be starting.
        try:
            first_model = FirstModel(services)  # Its process starts while this one imports what the page needs.
            code = RunningServer(services, first_model, passwords, listening, must_load).run()
        finally:
            _close(services)
        _exit_if_threads_hang(code)
        return code
    except KeyboardInterrupt:
        return 0
    finally:
        listening.close()


def _bind_socket(host: str, port: int) -> socket.socket:
    """A listening socket, bound before anything heavy is imported.

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


def _warn_if_exposed(rules: ServerRules) -> None:
    if rules.host not in LOOPBACK and not rules.on_space:
        print(
            f"chat_app: whoever reaches this computer on {rules.host} sees the page for logging in, and names and "
            "passwords travel unencrypted unless something in front of this server encrypts them.",
            file=sys.stderr,
            flush=True,
        )


def _close(services: Services) -> None:
    """Stop the training and unload the model. A thread that hangs, such as a download, is left behind."""
    closing = threading.Thread(target=services.close, name=LOADING_THREADS[1], daemon=True)
    closing.start()
    closing.join(SHUTDOWN_SECONDS)


def _exit_if_threads_hang(code: int) -> None:
    """Exit without Python's finalization, which can crash while a thread still loads a library or a model."""
    if any(thread.name in LOADING_THREADS for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
