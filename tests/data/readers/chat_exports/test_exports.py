"""Exports of Telegram, Discord and Slack in JSON -> messages, whatever is wrong inside them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_app.data.readers.chat_exports import discord, slack, telegram
from chat_app.data.readers.chat_exports.threading import ChatMessage, read_conversations, survey
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.types import Problem
from chat_app.errors import DataError

TELEGRAM: dict[str, Any] = {
    "name": "Anna",
    "type": "personal_chat",
    "id": 4242,
    "messages": [
        {"id": 1, "type": "service", "date": "2024-01-01T10:00:00", "actor": "Anna", "action": "phone_call",
         "text": ""},
        {"id": 2, "type": "message", "date": "2024-01-01T10:01:00", "date_unixtime": "1704099660", "from": "Anna",
         "from_id": "user1", "text": "hi", "text_entities": [{"type": "plain", "text": "hi"}]},
        {"id": 3, "type": "message", "date": "2024-01-01T10:02:00", "from": "Bob", "from_id": "user2",
         "reply_to_message_id": 2, "text": ["see ", {"type": "link", "text": "https://x.y"}, " and ",
                                            {"type": "mention", "text": "@anna"}]},
        {"id": 4, "type": "message", "date": "2024-01-01T10:03:00", "from": "Anna", "media_type": "sticker",
         "text": ""},
        {"id": 5, "type": "message", "date": "2024-01-01T10:04:00", "from": "Anna", "forwarded_from": "News",
         "text": "x"},
        {"id": 6, "type": "message", "date": "2024-01-01T10:05:00", "from": None, "from_id": "user77", "text": "gone"},
        {"id": 7, "type": "message", "date": "2024-01-01T10:06:00", "from": "Bob", "photo": "p.jpg", "text": "my cat"},
    ],
}  # fmt: skip
DISCORD: dict[str, Any] = {
    "guild": {"id": "1", "name": "Server"},
    "channel": {"id": "2", "type": "GuildTextChat", "name": "general"},
    "messages": [
        {"id": "1", "type": "GuildMemberJoin", "timestamp": "2024-01-01T10:00:00+00:00", "content": "Joined.",
         "author": {"id": "5", "name": "anna", "nickname": "Anna", "isBot": False}, "mentions": []},
        {"id": "2", "type": "Default", "timestamp": "2024-01-01T10:01:00.12+00:00",
         "content": "hey <@!6> <:smile:123456> <a:dance:99> in <#7> <@&8> <@9> </roll:10> <t:1704103260:R>",
         "author": {"id": "5", "name": "anna", "nickname": "Anna", "isBot": False}, "attachments": [], "embeds": [],
         "mentions": [{"id": "6", "name": "helper", "nickname": "Helper", "isBot": True}], "reactions": []},
        {"id": "3", "type": "Reply", "timestamp": "2024-01-01T12:02:00.1234567+02:00", "content": "At your service.",
         "author": {"id": "6", "name": "helper", "nickname": None, "isBot": True}, "mentions": []},
        {"id": "4", "type": "Default", "timestamp": "2024-01-01T10:03:00Z", "content": "", "attachments": [{"id": "1"}],
         "author": {"id": "5", "name": "anna", "nickname": "Anna"}, "mentions": []},
        {"id": "5", "type": "ChannelPinnedMessage", "timestamp": "2024-01-01T10:04:00Z", "content": "Pinned a message.",
         "author": {"id": "5", "name": "anna", "nickname": "Anna"}},
    ],
}  # fmt: skip
SLACK: list[Any] = [
    {"type": "message", "subtype": "channel_join", "user": "U1", "ts": "1704099600.000100", "text": "<@U1> has joined"},
    {"type": "message", "user": "U1", "ts": "1704099660.000200", "thread_ts": "1704099660.000200",
     "text": "see <http://x.y|the page> &lt;b&gt; &amp;amp; <@U2> <#C1|general> <!here> "
             "<mailto:a@b.c|a@b.c> <https://z.w>"},
    {"type": "message", "user": "U2", "ts": "1704099900.000100",
     "text": "later", "user_profile": {"real_name": "Bob B."}},
    {"type": "message", "user": "U2", "ts": "1704099720.000100", "thread_ts": "1704099660.000200",
     "text": "in a thread"},
    {"type": "message", "subtype": "bot_message", "bot_id": "B1", "username": "deploy", "ts": "1704099960.000100",
     "text": "Deployed."},
    {"type": "message", "user": "U1", "ts": "1704099980.000100", "text": "", "files": [{"id": "F1"}]},
]  # fmt: skip
EXPORTS = {"telegram": TELEGRAM, "discord": DISCORD, "slack": SLACK}


MODULES: dict[str, Any] = {"telegram": telegram, "discord": discord, "slack": slack}


def kind_of(value: Any) -> str | None:
    """The export that a parsed value is, if it is one; no value may be taken for two."""
    checks = {
        "discord": discord.is_discord_export(value),
        "telegram": telegram.is_telegram_export(value),
        "slack": slack.is_slack_day(value),
    }
    found = [kind for kind, is_it in checks.items() if is_it]
    assert len(found) < 2
    return found[0] if found else None


def read(value: Any) -> list[ChatMessage | Problem]:
    kind = kind_of(value)
    assert kind is not None
    return list(MODULES[kind].read_messages(value, "export.json"))


@pytest.mark.parametrize("kind", EXPORTS)
def test_an_export_is_recognised(kind: str) -> None:
    assert kind_of(EXPORTS[kind]) == kind


@pytest.mark.parametrize(
    "value",
    [
        None, 1, "text", [], {}, ["hi", "hello"], [{"a": 1}], {"messages": []}, {"messages": 3}, {"chats": []},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
        {"conversations": [{"from": "human", "value": "hi"}]}, [{"type": "message", "text": "hi"}],
        {"channel": {}, "messages": []}, {"type": "personal_chat"},
    ],
)  # fmt: skip
def test_other_values_are_no_export(value: Any) -> None:
    assert kind_of(value) is None


def test_telegram() -> None:
    assert read(TELEGRAM) == [
        ChatMessage(1704099660.0, "Anna", "hi", 2),
        ChatMessage(1704103320.0, "Bob", "see https://x.y and @anna", 3),
        ChatMessage(1704103500.0, "Deleted account 77", "gone", 6),
        ChatMessage(1704103560.0, "Bob", "my cat", 7),
    ]


def test_several_chats_of_telegram_never_merge() -> None:
    def one(name: Any, *authors: str) -> dict[str, Any]:
        said = [{"type": "message", "from": author, "date_unixtime": "1704099660", "text": "x"} for author in authors]
        return {"name": name, "type": "personal_chat", "id": 1, "messages": said}

    value = {"about": "...", "chats": {"list": [one("A", "Anna", "Me"), 7, one(None, "Bob", "Me", "Bob")]}}
    value["chats"]["list"][2]["messages"].append(5)  # type: ignore[index]
    found = read(value)
    messages = [item for item in found if isinstance(item, ChatMessage)]
    assert [(message.author, message.line, message.chat) for message in messages] == [
        ("Anna", 1, "1"), ("Me", 2, "1"), ("Bob", 3, "3"), ("Me", 4, "3"), ("Bob", 5, "3"),
    ]  # fmt: skip
    assert [(item.line, item.reason) for item in found if isinstance(item, Problem)] == [
        (None, "Chat 2 has no list of messages."),
        (6, "Message 4 of chat 3 cannot be read: It is not an object in braces."),
    ]
    assert survey(found, ReadingOptions()).likely_bot == "Me"
    assert len(list(read_conversations(found, "f", ReadingOptions(), "Me", ()))) == 4


def test_the_partner_in_a_chat_with_a_bot_is_the_bot() -> None:
    value = {**TELEGRAM, "type": "bot_chat", "id": 1}
    assert [message.by_bot for message in read(value) if isinstance(message, ChatMessage)] == [
        True,
        False,
        False,
        False,
    ]


def test_discord() -> None:
    assert read(DISCORD) == [
        ChatMessage(1704103260.0, "Anna", "hey @Helper :smile: :dance: in #channel @role @somebody /roll", 2),
        ChatMessage(1704103320.0, "helper", "At your service.", 3, by_bot=True),
    ]


def test_a_day_of_slack_is_in_the_order_of_time_and_its_threads_come_last() -> None:
    text = "see the page <b> &amp; @U2 #general @here a@b.c https://z.w"
    thread = f"{slack.THREAD}1704099660.000200"
    assert read(SLACK) == [
        ChatMessage(1704099900.0001, "Bob B.", "later", 3, file="export.json"),
        ChatMessage(1704099960.0001, "deploy", "Deployed.", 5, by_bot=True, file="export.json"),
        ChatMessage(None, "U1", text, 2, thread, file="export.json"),
        ChatMessage(None, "U2", "in a thread", 4, thread, file="export.json"),
    ]


def write_export(folder: Path, files: dict[str, Any]) -> list[tuple[Path, str]]:
    found = []
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value if isinstance(value, bytes) else orjson.dumps(value))
        found.append((path, name))
    return found


def test_an_export_of_slack_goes_channel_by_channel_and_knows_names(tmp_path: Path) -> None:
    def day(user: str, text: str, ts: str) -> list[Any]:
        return [{"type": "message", "user": user, "text": text, "ts": ts}]

    files = write_export(
        tmp_path,
        {
            "random/2024-01-01.json": day("U1", "<@U2> in <#C9>", "1.0"),
            "general/2024-01-02.json": day("U2", "second", "90000.0"),
            "general/2024-01-01.json": day("U1", "first", "2.0"),
            "general/2024-01-03.json": b"[{",
            "general/2024-01-04.json": {"a": 1},
            "general/canvas.json": [1],
            "users.json": [
                {"id": "U1", "name": "anna", "profile": {"display_name": "Anna", "real_name": "Anna W."}},
                {"id": "U2", "name": "bob", "real_name": "Anna", "profile": {"display_name": ""}},
                {"id": "U3"},
                4,
            ],
            "channels.json": [{"id": "C9", "name": "random"}],
        },
    )
    assert slack.is_export([name for _, name in files])
    found = list(slack.read_export_messages(files))
    assert [item for item in found if isinstance(item, ChatMessage)] == [
        ChatMessage(2.0, "Anna", "first", 1, "general", file="general/2024-01-01.json"),
        ChatMessage(90000.0, "Anna (U2)", "second", 1, "general", file="general/2024-01-02.json"),
        ChatMessage(1.0, "Anna", "@Anna (U2) in #random", 1, "random", file="random/2024-01-01.json"),
    ]
    assert [(item.file, item.reason) for item in found if isinstance(item, Problem)] == [
        ("general/2024-01-03.json", "This file is not JSON."),
        ("general/2024-01-04.json", "This file is not a list of messages."),
    ]


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    (problem,) = slack.read_export_messages([(tmp_path / "gone.json", "general/2024-01-01.json")])
    assert isinstance(problem, Problem)
    assert (
        problem.sentence()
        == "general/2024-01-01.json: The file is no longer there. It was moved or deleted: give it again."
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["users.json", "channels.json", "general/2024-01-01.json"], True),
        (["Shop Export/users.json", "Shop Export/general/2024-01-01.json"], True),
        (["x\\channels.json", "x\\general\\2024-01-01.json"], True),
        (["users.json", "general/notes.json"], False),
        (["general/2024-01-01.json"], False),
        (["a/users.json", "b/general/2024-01-01.json"], False),
        (["users.json", "2024-01-01.json"], False),
        ([], False),
    ],
)
def test_a_folder_is_an_export_of_slack_by_its_names(names: list[str], expected: bool) -> None:
    assert slack.is_export(names) is expected


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("telegram", {"text": 5}, 'Message 2 cannot be read: "text" is not a list.'),
        ("telegram", {"text": ["a", 5]}, "Message 2 cannot be read: A part of its text is not text."),
        ("telegram", {"from": ["Anna"]}, 'Message 2 cannot be read: "from" is not a name.'),
        ("telegram", {"date_unixtime": "soon"}, 'Message 2 cannot be read: "date_unixtime" holds no time.'),
        ("discord", {"content": {}}, 'Message 2 cannot be read: "content" is not text.'),
        ("discord", {"author": "Anna"}, 'Message 2 cannot be read: "author" is not an object in braces.'),
        ("discord", {"author": {}}, "Message 2 cannot be read: It has no author."),
        ("discord", {"mentions": 3}, 'Message 2 cannot be read: "mentions" is not a list.'),
        ("discord", {"timestamp": "2024-13-01T10:00:00Z"}, 'Message 2 cannot be read: "timestamp" holds no time.'),
        ("slack", {"ts": None}, 'Message 2 cannot be read: It has no time ("ts").'),
        ("slack", {"ts": True}, 'Message 2 cannot be read: "ts" holds no time.'),
        ("slack", {"user": None}, "Message 2 cannot be read: It has no author."),
        ("slack", {"subtype": 4}, 'Message 2 cannot be read: "subtype" is not text.'),
    ],
)  # fmt: skip
def test_a_malformed_message_is_named_and_costs_nothing_else(kind: str, change: dict[str, Any], reason: str) -> None:
    value = copy.deepcopy(EXPORTS[kind])
    items = value if isinstance(value, list) else value["messages"]
    items[1].update(change)
    found = read(value)
    assert [(item.line, item.reason) for item in found if isinstance(item, Problem)] == [(2, reason)]
    assert len(found) == len(read(EXPORTS[kind]))


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("\ud800\0"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, item in inside:
        found += places(item, (*path, key))
    return found


FULL = {"chats": {"list": [TELEGRAM, {**TELEGRAM, "name": "B", "type": "bot_chat"}]}}
PLACES = {name: places(value) for name, value in {**EXPORTS, "full": FULL}.items()}


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_change_makes_reading_fail(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(PLACES)))
    value = copy.deepcopy({**EXPORTS, "full": FULL}[name])
    for path in data.draw(st.lists(st.sampled_from(PLACES[name]), min_size=1, max_size=3)):
        place = value
        try:
            for key in path[:-1]:
                place = place[key]
            place[path[-1]]  # another change may have taken it away
        except (LookupError, TypeError):
            continue
        if isinstance(place, dict | list):
            place[path[-1]] = data.draw(ODD)
    kind = kind_of(value)
    if kind is None:
        return
    found = list(MODULES[kind].read_messages(value, "f"))
    assert all(isinstance(item, ChatMessage | Problem) for item in found)
    try:
        people = survey(found, ReadingOptions())
        list(read_conversations(found, "f", ReadingOptions(names="replace"), people.likely_bot, people.speakers))
    except DataError:
        pass


@settings(max_examples=100, deadline=None)
@given(value=ODD)
def test_any_value_can_be_asked_for_its_kind(value: Any) -> None:
    assert kind_of(value) in (None, "telegram", "discord", "slack")
