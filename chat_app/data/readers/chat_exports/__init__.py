"""Readers of exported chats: WhatsApp, Telegram, Discord, Slack; and messages threaded into conversations."""

__all__ = ["detect", "slack", "threading", "whatsapp"]
