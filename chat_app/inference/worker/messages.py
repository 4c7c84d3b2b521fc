"""What travels between the app and a model's process.

The app sends `Load`, `StartReply` and `CancelReply`; the process sends lists of the others. `number` tells which
reply is meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.inference.backend import ModelDescription, ReplyEvent, ReplyRequest
from chat_app.system.sent_errors import SentError


@dataclass(frozen=True)
class Load:
    """Load this model. A process loads one.

    Attributes:
        taken: device -> bytes that the app's other models take there, so that several GPUs are used evenly.
    """

    name: str
    config: LoadConfig
    paths: Paths
    taken: dict[str, int]


@dataclass(frozen=True)
class StartReply:
    """Write a reply."""

    number: int
    request: ReplyRequest


@dataclass(frozen=True)
class CancelReply:
    """End a reply within a step; its ReplyEnd still comes."""

    number: int


@dataclass(frozen=True)
class Loaded:
    """The model is there."""

    description: ModelDescription


@dataclass(frozen=True)
class LoadFailed:
    """The model could not be loaded."""

    error: SentError


@dataclass(frozen=True, slots=True)
class ReplyProgress:
    """The next event of a reply."""

    number: int
    event: ReplyEvent


@dataclass(frozen=True)
class ReplyFailed:
    """A reply ended with an error."""

    number: int
    error: SentError


@dataclass(frozen=True)
class Heartbeat:
    """Sent every HEARTBEAT_SECONDS: the process can still run Python."""


FromApp: TypeAlias = Load | StartReply | CancelReply
FromWorker: TypeAlias = Loaded | LoadFailed | ReplyProgress | ReplyFailed | Heartbeat

HEARTBEAT_SECONDS = 2.0
