"""The HTTP API on a real port, in a thread of the tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from chat_app.server.auth import Accounts, Throttle
from chat_app.server.openai_api import Api
from chat_app.services import Services


class ApiServer:
    """The routes of some services.

    Args:
        key: what programs must send; None lets everybody in.
    """

    def __init__(self, services: Services, key: str | None = None):
        app = FastAPI()
        self.api = Api(services, Accounts({}, key, Throttle()), lambda: False)
        self.api.add_to(app)
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        wait_for(lambda: self._server.started)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """End it."""
        self._server.should_exit = True
        self._thread.join()


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    """Wait until something is true; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)
