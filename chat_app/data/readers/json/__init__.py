"""Readers of JSON Lines and of single JSON documents, and the chat schemas that they support."""

__all__ = ["document", "items", "jsonl", "messages", "records", "segments", "values"]
