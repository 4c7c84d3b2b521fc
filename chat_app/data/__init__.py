"""Conversations on their way to a model: read, checked, split, tokenized, written.

`readers` understand files, `quality` checks what was read. Batches are made in `chat_app.training.collator`.
"""

__all__ = [
    "dataset",
    "paraphrase",
    "quality",
    "readers",
    "source",
    "splitting",
    "text_corpus",
    "tokenized_dataset",
    "writers",
]
