"""The Chat tab: the session of a visitor, replies as they are streamed, and corrections.

Replies are generated in `chat_app.inference`.
"""

__all__ = ["session", "streaming", "tab"]
