"""Conversations -> token ids: chat formats, chat templates, the encoder, and detecting a checkpoint's format.

Neither torch nor transformers is imported.
"""

__all__ = ["chat_formats", "encoder", "format_detection"]
