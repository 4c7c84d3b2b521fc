"""Which program exported a chat as JSON, and its messages. Knows the programs' names; the layouts are their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from chat_app.data.readers.chat_exports import discord, slack, telegram
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.types import Problem

ExportKind = Literal["telegram", "discord", "slack"]


def kind_of(value: Any) -> ExportKind | None:
    """Whose export a parsed JSON value is, None if it is none that is known."""
    if discord.recognises(value):
        return "discord"
    if telegram.recognises(value):
        return "telegram"
    return "slack" if slack.recognises(value) else None


def messages_of(value: Any, kind: ExportKind, file: str) -> Iterator[ChatMessage | Problem]:
    """The messages of an export, chat after chat; `ChatMessage.chat` tells the chats apart.

    A message that is not as that program writes it becomes a problem with its number.

    Args:
        value: what `kind_of` recognised as `kind`.
    """
    if kind == "telegram":
        return telegram.messages(value, file)
    return discord.messages(value, file) if kind == "discord" else slack.messages(value, file)
