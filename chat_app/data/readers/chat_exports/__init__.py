"""Readers of chat exports (WhatsApp, Telegram, Discord, Slack), and the threading of messages into conversations."""

__all__ = ["chat_reader", "discord", "slack", "telegram", "threading", "whatsapp"]
