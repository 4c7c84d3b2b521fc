"""The switch that quotes replies from the taught list: who may use it, and what is said under a reply."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chat_app.config.server import ServerRules
from chat_app.data.answer_list import AnswerList
from chat_app.errors import RunError
from chat_app.inference.backend import ReplyEnd
from chat_app.inference.quoting import QuotingBackend
from chat_app.ui.chat.answer_switch import AnswerSwitch, describe_quote
from chat_app.ui.chat.session import ChatSession, ChatTurn

ANSWERS = AnswerList([("Hello", "Good day.")])
MODEL: Any = SimpleNamespace(name="shop")


def make_switch(owner: str = "anna", **rules: Any) -> AnswerSwitch:
    def find_model(visitor: str, name: str) -> str:
        if visitor != owner:
            raise RunError(f"There is no run '{name}'.")
        return name

    lists = SimpleNamespace(has=lambda name: name == "shop", find=lambda name: ANSWERS)
    services: Any = SimpleNamespace(rules=ServerRules(**rules), answers=lists, find_model=find_model)
    visitors: Any = SimpleNamespace(identify=lambda token, request: token)
    return AnswerSwitch(services, visitors, None)


def choose(switch: AnswerSwitch, mode: object, visitor: str = "anna") -> ChatSession:
    session = ChatSession()
    request: Any = None
    switch.choose(mode, session, visitor, request)
    return session


def test_by_default_the_model_writes() -> None:
    assert make_switch().put_before(MODEL, ChatSession()) is MODEL


def test_the_owner_of_a_list_has_it_quoted() -> None:
    switch = make_switch()
    found = switch.put_before(MODEL, choose(switch, "sure"))
    assert isinstance(found, QuotingBackend)
    assert (found.model, found.mode) == (MODEL, "sure")
    assert switch.update(MODEL, "anna").visible is True


def test_another_visitor_only_where_the_server_was_started_so() -> None:
    switch = make_switch(share=True)
    assert switch.put_before(MODEL, choose(switch, "only", "bert")) is MODEL
    assert switch.update(MODEL, "bert").visible is False
    assert isinstance(switch.put_before(MODEL, choose(switch, "only", "anna")), QuotingBackend)
    opened = make_switch(answers="sure", share=True)
    assert isinstance(opened.put_before(MODEL, choose(opened, "only", "bert")), QuotingBackend)


@pytest.mark.parametrize("mode", ["always", None, 1, ["sure"]])
def test_what_the_page_sends_is_checked(mode: object) -> None:
    assert choose(make_switch(), mode).answers == "off"


def test_a_model_without_a_list_has_no_switch() -> None:
    other: Any = SimpleNamespace(name="starter")
    switch = make_switch()
    assert switch.update(other, "anna").visible is False
    assert switch.update(None, "anna").visible is False
    assert switch.put_before(other, choose(switch, "only")) is other


def test_a_quoted_reply_names_the_taught_question_and_the_share() -> None:
    before = [ChatTurn("user", "Hello"), ChatTurn("assistant", "Good day.", is_quoted=True), ChatTurn("user", "When?")]
    end = ReplyEnd("At nine.", "end", 0, 0, 64, 0.0, 0.0, quoted="When do you open?")
    line = describe_quote(end, before)
    assert "“When do you open?”" in line
    assert "Of 2 replies in this chat 2 came from it." in line
    unknown = describe_quote(ReplyEnd("?", "end", 0, 0, 64, 0.0, 0.0), before)
    assert "no sure answer" in unknown
    assert "Of 2 replies in this chat 1 came from it." in unknown
