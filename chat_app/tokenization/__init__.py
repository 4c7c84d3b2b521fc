"""Conversations -> token ids: chat formats, chat templates, the encoder, and the detection of a checkpoint's format.

The tokenizer of transformers is passed in; neither torch nor transformers is imported. Batches are made in
`chat_app.training.collator`.
"""

__all__ = ["chat_formats", "chat_tokenizer", "encoder", "format_detection"]
