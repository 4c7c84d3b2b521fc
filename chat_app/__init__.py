"""chat_app: talk to a GPT-2 dialogue model, teach it from your conversations, talk to the result.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chat_app._version import __version__

_HOME_OF = {
    "Conversation": "chat_app.conversation",
    "Message": "chat_app.conversation",
    "ConversationExample": "chat_app.compat.convmodel",
    "ConversationModel": "chat_app.compat.convmodel",
    "ConversationTokenizer": "chat_app.compat.convmodel",
}
__all__ = [
    "Conversation",
    "ConversationExample",
    "ConversationModel",
    "ConversationTokenizer",
    "Message",
    "__version__",
]

if TYPE_CHECKING:
    from chat_app.compat.convmodel import ConversationExample, ConversationModel, ConversationTokenizer
    from chat_app.conversation import Conversation, Message


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'chat_app' has no attribute '{name}'")
    return getattr(import_module(_HOME_OF[name]), name)
