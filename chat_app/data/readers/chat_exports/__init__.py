"""Readers of exported chats, of people and with assistants; and messages threaded into conversations."""

__all__ = [
    "assistant_chat", "chat_reader", "chatgpt", "claude", "clock_times", "discord", "google_chat", "imessage", "irc",
    "joined_chat", "kakaotalk", "line", "line_log", "meeting", "messenger", "named_lines", "oobabooga", "signal",
    "sillytavern", "skype", "slack", "sms", "telegram", "threading", "whatsapp",
]  # fmt: skip
