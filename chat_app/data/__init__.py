"""The data pipeline: reading conversations from files and the Hub, quality checks, the split, tokenization, export.

`readers` parse files and `quality` checks what they return. Batches are made in `chat_app.training.collator`.
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
