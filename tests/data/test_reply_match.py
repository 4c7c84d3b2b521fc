"""Which reply of a set is meant."""

from __future__ import annotations

import pytest

from chat_app.data.reply_match import ReplyIndex

REPLIES = [
    "We open at nine.",
    "We close at six in the evening.",
    "Parking is free behind the town hall.",
    "我们九点开门。",
    "停车免费。",
]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        *((reply, reply) for reply in REPLIES),
        ("we open at nine!", REPLIES[0]),
        ("Parking is free for you, behind our town hall", REPLIES[2]),
        ("我们早上九点开门", REPLIES[3]),
        ("The weather is fine today, and I like it very much.", None),
        ("at", None),
        ("", None),
    ],
)
def test_the_nearest_reply_is_meant_if_it_is_near(said: str, meant: str | None) -> None:
    assert ReplyIndex([*REPLIES, *REPLIES]).find(said) == meant


def test_of_no_replies_none_is_meant() -> None:
    assert ReplyIndex([]).find("Hello") is None
