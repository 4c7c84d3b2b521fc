"""The chat in a real Chromium, with replies whose moments the tests choose: nothing is lost, nothing old is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chat_page import ChatServer
from tests.browser.test_page import CHROMIUM, browser, expect  # noqa: F401 - the fixture is used by name.

BOX = "#message textarea"
TURNS = "#conversation .turn"
SAID = "#conversation .turn .said"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]


@pytest.fixture
def server(tmp_path: Path) -> ChatServer:
    """A server that is not started yet."""
    return ChatServer(tmp_path)


@pytest.fixture
def open_page(browser: Any, server: ChatServer) -> Iterator[Callable[[], Any]]:  # noqa: F811
    """Opens the page as a new visitor."""
    contexts, errors = [], []

    def open_one() -> Any:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 900}))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.address)
        expect(page.locator(".hints button").first).to_be_visible()
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not errors


def say(page: Any, text: str) -> None:
    """Send a message."""
    page.fill(BOX, text)
    page.press(BOX, "Enter")


def expect_said(page: Any, *texts: str) -> None:
    """Wait until these are the turns, and none of them is being written."""
    expect(page.locator(SAID)).to_have_text(list(texts))
    expect(page.locator("#conversation .turns")).to_have_attribute("aria-busy", "false")


def test_a_page_that_outlives_its_server_draws_what_the_next_one_says(
    server: ChatServer, open_page: Callable[[], Any]
) -> None:
    server.backend.words = ["yes"]
    with server.run():
        page = open_page()
        say(page, "One")
        expect_said(page, "One", "Reply 1 yes")
        say(page, "Two")
        expect_said(page, "One", "Reply 1 yes", "Two", "Reply 2 yes")
    with server.run():
        say(page, "Three")
        expect(page.locator(SAID).nth(-2)).to_have_text("Three")
        expect(page.locator(SAID).last).to_have_text("Reply 3 yes")
