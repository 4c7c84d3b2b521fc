"""A reply that a page follows while it is written: its text in pieces, to nobody who does not know its name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from chat_app.config.server import ServerRules
from chat_app.inference.backend import ModelDescription, QueuePosition, ReplyEnd, ReplyEvent, TextDelta
from chat_app.ui.chat import streaming as live
from chat_app.ui.chat import tab as chat_tab
from chat_app.ui.chat.session import ChatSession, ChatTurn
from chat_app.ui.chat.streaming import PATH, SECONDS_BETWEEN_DRAWS, LiveReplies, LiveReply, RedrawThrottle
from chat_app.ui.chat.tab import ChatTab


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between drawings."""
    monkeypatch.setattr(live, "SECONDS_BETWEEN_DRAWS", (0.0, 0.0))
    monkeypatch.setattr(chat_tab, "SECONDS_TO_FOLLOW", 0.0)


def test_a_reply_is_drawn_at_once_and_then_ever_more_seldom() -> None:
    now, drawn = 100.0, []
    throttle = RedrawThrottle(clock=lambda: now)
    for token in range(1000):
        now = 100 + token / 200
        if throttle.is_due():
            throttle.record_draw()
            drawn.append(now - 100)
    gaps = [later - earlier for earlier, later in pairwise(drawn)]
    assert drawn[0] == 0
    assert gaps[0] == pytest.approx(SECONDS_BETWEEN_DRAWS[0], abs=0.006)
    assert gaps[-1] == pytest.approx(SECONDS_BETWEEN_DRAWS[1], abs=0.006)
    assert gaps == pytest.approx(sorted(gaps), abs=0.006)


@pytest.mark.usefixtures("hurried")
def test_the_pieces_are_the_text_from_its_beginning_to_its_end() -> None:
    turn = ChatTurn("assistant", "Good ")
    reply = LiveReply(turn)

    async def read() -> list[str]:
        found = []
        async for piece in reply.stream_text():
            assert reply.is_read
            found.append(piece)
            if turn.text == "Good ":
                turn.text += "day"
            else:
                turn.text += " to 👋 you"
                reply.end()
        return found

    assert asyncio.run(read()) == ["Good ", "day", " to 👋 you"]
    assert not reply.is_read


def test_a_reader_who_leaves_reads_no_more() -> None:
    reply = LiveReply(ChatTurn("assistant", "Good "))

    async def leave() -> None:
        pieces: Any = reply.stream_text()
        assert await anext(pieces) == "Good "
        await pieces.aclose()

    asyncio.run(leave())
    assert not reply.is_read


def test_a_reply_has_an_address_only_while_it_is_written() -> None:
    app, replies = FastAPI(), LiveReplies()
    replies.add_to(app)
    client = TestClient(app)
    turn = ChatTurn("assistant", "One\n\ndata: two")
    with replies.open(turn) as reply, replies.open(turn) as other:
        assert len({reply.name, other.name}) == 2
        reply.end()
        answer = client.get(PATH + reply.name)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert [json.loads(line[6:]) for line in answer.text.splitlines() if line] == [turn.text]
        assert client.get(PATH + reply.name[:-1]).status_code == 404
    for name in (reply.name, other.name):
        assert client.get(PATH + name).status_code == 404


def views_of(written: Any, is_followed: bool, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Gradio draws of a reply that comes in these parts."""
    backend = SimpleNamespace(
        name="tiny", description=ModelDescription("tiny", "folder", is_ready=True, window=128), stream=written
    )
    services: Any = SimpleNamespace(jobs=None, find_backend=lambda model=None: backend)
    monkeypatch.setattr("chat_app.ui.models.model_choices.name_speaker", lambda *_: "Model")
    monkeypatch.setattr(LiveReply, "is_read", is_followed)
    visitors: Any = None
    services.rules = ServerRules()
    with gr.Blocks():
        tab = ChatTab(services, visitors, gr.State(""), LiveReplies())
        tab.draw()
    return [updates[tab.view] for updates in tab.send("Hello", ChatSession(), "", *tab.sampling.get_defaults())]


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(("is_followed", "drawn"), [(False, ["", "a", "ab", "abc", "abcd"]), (True, ["", "abcd"])])
def test_gradio_draws_the_beginning_and_the_end_and_the_rest_only_for_a_page_that_cannot_follow(
    monkeypatch: pytest.MonkeyPatch, is_followed: bool, drawn: list[str]
) -> None:
    def written(*_: Any, **__: Any) -> Iterator[ReplyEvent]:
        yield from map(TextDelta, "abc")
        yield ReplyEnd("abcd", "end", 4, 3, 128, 1.0, 0.1)

    *updates, last = views_of(written, is_followed, monkeypatch)
    names = {view["live"] for view in updates}
    assert len(names) == 1, "one name for the whole reply"
    assert names != {""}
    assert last["live"] == "", "what has ended is followed no more"
    assert [view["rows"][-1]["text"] for view in (*updates, last)] == drawn


def test_what_was_said_of_the_queue_goes_with_the_first_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def written(*_: Any, **__: Any) -> Iterator[ReplyEvent]:
        yield QueuePosition(2)
        yield from map(TextDelta, "abc")
        yield ReplyEnd("abc", "end", 3, 3, 128, 1.0, 0.1)

    rows = [view["rows"][-1] for view in views_of(written, True, monkeypatch)]
    assert "number 2 in the queue" in rows[1]["note"]
    assert (rows[2]["text"], rows[2]["note"]) == ("a", "")
    assert len(rows) == 4, "the rest comes to the page by itself"
