"""In a real Chromium: the description of the HTTP API without the network, and a page whose engine is elsewhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.server import ServerRules
from chat_app.services import Services
from tests.browser.test_page import CHROMIUM, browser, expect, say
from tests.server.api_server import ApiServer
from tests.server.test_server import App

__all__ = ["browser"]  # A fixture.
KEY = "the key of the engine"

pytestmark = [
    pytest.mark.slow_file,
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]


@pytest.fixture
def engine(tmp_path: Path, make_folder: Callable[..., Path]) -> Iterator[ApiServer]:
    """Another chat_app, which has the model."""
    services = Services(Paths(tmp_path / "behind"), ServerRules(training=False), str(make_folder("tiny")))
    services.models.use(services.first_model, LoadConfig(precision="float32"))
    server = ApiServer(services, KEY)
    yield server
    server.close()
    services.close()


@pytest.fixture
def app(tmp_path: Path, engine: ApiServer) -> Iterator[App]:
    """`python app.py --engine URL`, without a model of its own."""
    keys = {"CHAT_APP_ENGINE_KEY": KEY, "OMP_NUM_THREADS": "1"}
    app = App(tmp_path / "home", ["--port", "0", "--engine", engine.url], **keys)
    yield app
    assert app.end(signal.SIGINT if os.name == "nt" else signal.SIGTERM) == 0
    assert "Traceback" not in "".join(app.errors)


def test_a_page_whose_engine_is_elsewhere_and_the_description_of_the_api(
    app: App, engine: ApiServer, browser: Any
) -> None:
    address = app.wait_for_address()
    assert app.out[0].startswith("chat_app is ready")
    requests: list[str] = []
    complaints: list[str] = []
    page = browser.new_page()
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))

    page.goto(f"{address}/docs")
    page.locator(".opblock-summary-path", has_text="/health").click()
    page.locator(".opblock .execute").click()
    expect(page.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    expect(page.locator(".live-responses-table .highlight-code").last).to_contain_text('"model": "tiny"')
    expect(page.locator(".opblock")).to_have_count(5)
    assert complaints == []

    page.goto(address)
    place = f"127.0.0.1:{engine.port}"
    expect(page.locator("#header")).to_contain_text(place)
    expect(page.locator("#chat-model-about")).to_contain_text(f"The server {place} answers with tiny")
    assert say(page, "Hello", 1).inner_text().strip()
    expect(page.locator("#conversation .turn.assistant .note")).to_contain_text("of 128 tokens of memory used")
    page.close()
    assert not [url for url in requests if not url.startswith((address, "data:", "blob:"))]
