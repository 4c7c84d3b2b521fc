"""Readers of exported chats: WhatsApp, Telegram, Discord, Slack; and messages threaded into conversations."""

__all__ = ["chat_reader", "discord", "slack", "telegram", "threading", "whatsapp"]
