"""The chat in a real Chromium, with replies whose moments the tests choose: nothing is lost, nothing old is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chat_app.errors import SettingError
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


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatServer]:
    """One server for all the tests that do not end it."""
    server = ChatServer(tmp_path_factory.mktemp("home"))
    with server.run():
        yield server


@pytest.fixture
def server(running: ChatServer) -> Iterator[ChatServer]:
    """The server, whose backend has said nothing yet."""
    running.backend.begin_anew()
    yield running
    running.backend.go_on()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[[ChatServer], Any]]:  # noqa: F811
    """Opens the page of a server as a new visitor. At the end: no script has failed."""
    contexts, errors = [], []

    def open_one(server: ChatServer) -> Any:
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
    tmp_path: Path, open_page: Callable[[ChatServer], Any]
) -> None:
    server = ChatServer(tmp_path)
    server.backend.words = ["yes"]
    with server.run():
        page = open_page(server)
        say(page, "One")
        expect_said(page, "One", "Reply 1 yes")
        say(page, "Two")
        expect_said(page, "One", "Reply 1 yes", "Two", "Reply 2 yes")
    with server.run():
        say(page, "Three")
        expect(page.locator(SAID).nth(-2)).to_have_text("Three")
        expect(page.locator(SAID).last).to_have_text("Reply 3 yes")


def test_a_new_conversation_during_a_reply_is_ready_for_a_message(
    server: ChatServer, open_page: Callable[[ChatServer], Any]
) -> None:
    page = open_page(server)
    server.backend.hold()
    say(page, "One")
    expect(page.locator(SAID).last).to_have_text("Reply 1")
    page.click("#clear")
    expect(page.locator(TURNS)).to_have_count(0)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    server.backend.go_on()
    say(page, "Two")
    expect_said(page, "Two", "Reply 2 and then the end")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.locator("[data-testid=stop-button]")).to_be_hidden()


@pytest.mark.parametrize("latency", [150, 600])
def test_what_is_typed_in_the_moment_after_enter_stays(
    server: ChatServer, open_page: Callable[[ChatServer], Any], latency: int
) -> None:
    page = open_page(server)
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    limits = {"offline": False, "latency": latency, "downloadThroughput": -1, "uploadThroughput": -1}
    network.send("Network.emulateNetworkConditions", limits)
    server.backend.hold()
    say(page, "One")
    page.keyboard.type("Two")
    expect(page.locator(SAID)).to_have_text(["One", "Reply 1"])
    page.keyboard.press("Enter")
    expect(page.locator("#message .told")).to_contain_text("A reply is being written")
    server.backend.go_on()
    expect_said(page, "One", "Reply 1 and then the end")
    expect(page.locator(BOX)).to_have_value("Two")
    page.keyboard.press("Enter")
    expect_said(page, "One", "Reply 1 and then the end", "Two", "Reply 2 and then the end")
    expect(page.locator(BOX)).to_have_value("")


def test_a_message_that_is_sent_without_a_connection_is_answered_later(
    server: ChatServer, open_page: Callable[[ChatServer], Any]
) -> None:
    page = open_page(server)
    say(page, "One")
    expect_said(page, "One", "Reply 1 and then the end")
    page.context.set_offline(True)
    say(page, "Two")
    expect(page.locator(f"{TURNS} .note").last).to_contain_text("There is no connection")
    page.keyboard.type("Three")
    page.context.set_offline(False)  # After that, Gradio loads the page anew.
    expect(page.locator(SAID).nth(-2)).to_have_text("Two")
    expect(page.locator(SAID).last).to_have_text("Reply 2 and then the end")
    expect(page.locator(BOX)).to_have_value("Three")
    assert [request.conversation.texts[-1] for request in server.backend.asked] == ["One", "Two"]


def test_a_refused_message_returns_to_the_box(server: ChatServer, open_page: Callable[[ChatServer], Any]) -> None:
    page = open_page(server)
    server.backend.refusal = SettingError("max_new_tokens", "9 is more than fits.")
    say(page, "One")
    expect(page.get_by_text("9 is more than fits.")).to_be_visible()
    expect(page.locator(BOX)).to_have_value("One")
    expect(page.locator(TURNS)).to_have_count(0)
    server.backend.refusal = None
    page.press(BOX, "Enter")
    expect_said(page, "One", "Reply 2 and then the end")


def test_letters_that_are_being_composed_are_not_sent(
    server: ChatServer, open_page: Callable[[ChatServer], Any]
) -> None:
    page = open_page(server)
    page.fill(BOX, "konn")
    page.locator(BOX).dispatch_event("keydown", {"key": "Enter", "keyCode": 229, "bubbles": True})  # As Safari does.
    page.press(BOX, "Shift+Enter")
    page.keyboard.type("ichiwa")
    expect(page.locator(BOX)).to_have_value("konn\nichiwa")
    expect(page.locator(BOX)).to_have_attribute("dir", "auto")
    page.keyboard.press("Enter")
    expect_said(page, "konn\nichiwa", "Reply 1 and then the end")
    assert [request.conversation.texts for request in server.backend.asked] == [["konn\nichiwa"]]


AT_END = """() => {
  const list = document.querySelector("#conversation .turns");
  return list.clientHeight > 0 && list.scrollHeight - list.scrollTop - list.clientHeight < 2;
}"""


def test_a_reply_is_followed_to_its_end_when_its_tab_was_left(
    server: ChatServer, open_page: Callable[[ChatServer], Any]
) -> None:
    page = open_page(server)
    server.backend.words = ["line\n" * 40] * 3
    say(page, "One")
    expect(page.locator(f"{TURNS} .note")).to_have_count(1)
    page.wait_for_function(AT_END)
    server.backend.hold()
    say(page, "Two")
    expect(page.locator(SAID).last).to_have_text("Reply 2")
    page.get_by_role("tab", name="Teach").click()
    expect(page.locator("#conversation")).to_be_hidden()
    server.backend.go_on()
    expect(page.locator(f"{TURNS} .note")).to_have_count(2)
    page.get_by_role("tab", name="Chat").click()
    page.wait_for_function(AT_END)
    page.evaluate("document.querySelector('#conversation .turns').scrollTop = 300")
    page.wait_for_function("document.querySelector('#conversation .turns').scrollTop === 300")
    page.get_by_role("tab", name="Teach").click()
    expect(page.locator("#conversation")).to_be_hidden()
    page.get_by_role("tab", name="Chat").click()
    page.wait_for_function("document.querySelector('#conversation .turns').scrollTop === 300")


def test_an_open_edit_stays_while_the_conversation_goes_on(
    server: ChatServer, open_page: Callable[[ChatServer], Any]
) -> None:
    page = open_page(server)
    say(page, "One")
    expect_said(page, "One", "Reply 1 and then the end")
    page.get_by_label("Edit this message").first.click()
    page.get_by_label("Edit the message").fill("Uno")
    say(page, "Two")
    expect(page.locator(SAID)).to_have_text(
        ["Reply 1 and then the end", "Two", "Reply 2 and then the end"]  # The first is being edited.
    )
    expect(page.get_by_label("Edit the message")).to_have_value("Uno")
    page.get_by_label("Edit the message").press("Enter")
    expect_said(page, "Uno", "Reply 3 and then the end")


def test_the_focus_never_falls_out_of_the_conversation(
    server: ChatServer, open_page: Callable[[ChatServer], Any]
) -> None:
    page = open_page(server)
    say(page, "One")
    expect_said(page, "One", "Reply 1 and then the end")
    page.get_by_label("Edit this message").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Edit the message").press("Escape")
    expect(page.get_by_label("Edit this message")).to_be_focused()
    server.backend.hold()
    page.get_by_label("Another reply").focus()
    page.keyboard.press("Enter")
    expect(page.locator(SAID).last).to_have_text("Reply 2")
    expect(page.locator(BOX)).to_be_focused()
    page.locator("[data-testid=stop-button]").focus()
    page.keyboard.press("Enter")
    expect(page.locator(f"{TURNS} .note")).to_contain_text("You stopped it.")
    expect(page.locator(BOX)).to_be_focused()
    page.get_by_label("Undo").focus()
    page.keyboard.press("Enter")
    expect(page.locator(TURNS)).to_have_count(0)
    expect(page.locator(BOX)).to_be_focused()
