"""Readers of JSON Lines and of whole JSON documents, and the chat schemas found in them."""

__all__ = ["document", "jsonl", "messages", "records", "values"]
