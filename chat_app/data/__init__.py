"""The data pipeline: reading conversations from files and the Hub, quality checks, the split, tokenization, export.

`readers` parse files and `quality` checks what they return. Batches are made in `chat_app.training.collator`.
"""

__all__ = [
    "answer_list",
    "augmentation",
    "dataset",
    "everyday_words",
    "paraphrase",
    "quality",
    "readers",
    "reply_match",
    "source",
    "splitting",
    "text_corpus",
    "tokenized_dataset",
    "writers",
]
