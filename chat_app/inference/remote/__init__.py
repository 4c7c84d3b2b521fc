"""Replies from another server that speaks OpenAI's chat completions."""

__all__ = ["backend"]
