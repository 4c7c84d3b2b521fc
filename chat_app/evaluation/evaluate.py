"""Evaluation of a model on conversations: perplexity and bits per byte, and metrics of its replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chat_app.conversation import Conversation
from chat_app.errors import DataError
from chat_app.evaluation import metrics
from chat_app.evaluation.evaluation import Evaluation
from chat_app.evaluation.segmentation import choose_tokenizer
from chat_app.inference.generation import generate_greedily
from chat_app.system.progress import Progress, ProgressCallback, ignore_progress
from chat_app.tokenization.encoder import IGNORE_INDEX, Encoder, Example, Learn
from chat_app.training.collator import PackingCollator
from chat_app.training.loss import Likelihood, likelihood

REPLY_TOKENS = 64
# Rows between two calls of `progress`: enough to be packed well, few enough to stop soon.
ROWS_AT_ONCE = 512


def evaluate(
    model: Any,
    encoder: Encoder,
    conversations: Sequence[Conversation],
    learn: Learn = "replies",
    *,
    precision: str = "float32",
    most_replies: int = 100,
    progress: ProgressCallback = ignore_progress,
) -> Evaluation:
    """Measure a model.

    Every learned turn is measured once, with the newest turns before it that fit the window.

    Args:
        precision: in which the model computes.
        most_replies: draw the likeliest reply to at most this many conversations, spread evenly; 0 draws none.
        progress: is given a sentence about what is being done.

    Raises:
        DataError: nothing in the conversations is learned.
    """
    total, tokens, size = 0.0, 0, 0
    special = frozenset(encoder.special_token_ids.values()) | encoder.end_ids
    collator = PackingCollator(pad_id=encoder.tokenizer.pad_token_id or 0)
    rows: list[Example] = []
    for number, conversation in enumerate(conversations, start=1):
        own = encoder.examples(conversation, learn, new_share=0.0)
        rows += own
        size += sum(_count_bytes(encoder, row, special) for row in own)
        if rows and (len(rows) >= ROWS_AT_ONCE or number == len(conversations)):
            part = likelihood(model, rows, collator, precision)
            total, tokens = total + part.total, tokens + part.tokens
            rows = []
            progress(Progress(f"Read {number:,} of {len(conversations):,} conversations."))
    if not tokens:
        raise DataError("There is nothing to measure: no reply was found.", advice="Try --learn all.")
    found = Likelihood(total, tokens)
    replies, references = _replies(model, encoder, conversations, most_replies, progress)
    return Evaluation(
        perplexity=found.perplexity,
        bits_per_byte=found.bits / size if size else float("nan"),
        bleu=metrics.bleu(replies, references) if replies else None,
        distinct_1=metrics.distinct(replies, 1) if replies else None,
        distinct_2=metrics.distinct(replies, 2) if replies else None,
        reward=metrics.reward(replies, references) if replies else None,
        penalty=metrics.penalty(replies) if replies else None,
        reply_words=metrics.mean_words(replies) if replies else None,
        conversations=len(conversations),
        learned_tokens=tokens,
        replies=len(replies),
        bleu_tokenizer=choose_tokenizer(references) if replies else "",
    )


def _count_bytes(encoder: Encoder, row: Example, special: frozenset[int]) -> int:
    """The UTF-8 bytes of the text that a row learns. What was cut off is not measured, so it is not counted either."""
    learned = [label for label in row.labels if label != IGNORE_INDEX and label not in special]
    return len(encoder.text_of(learned).encode("utf-8", "replace"))


def _replies(
    model: Any,
    encoder: Encoder,
    conversations: Sequence[Conversation],
    most: int,
    progress: ProgressCallback,
) -> tuple[list[str], list[str]]:
    """The likeliest last replies, and what was really said there."""
    answered = [one for one in conversations if one.replies and one.turns[0].role == "user"]
    every = max(1, -(-len(answered) // most)) if most else len(answered) + 1
    chosen = answered[::every] if most else []
    replies, references = [], []
    for number, conversation in enumerate(chosen):
        progress(Progress(f"Wrote {number:,} of {len(chosen):,} replies."))
        last = max(index for index, turn in enumerate(conversation.messages) if turn.role == "assistant")
        prompt = Conversation(conversation.messages[:last])
        replies.append(generate_greedily(model, encoder, prompt, REPLY_TOKENS))
        references.append(conversation.messages[last].text)
    return replies, references
