"""Cross-entropy loss, negative log-likelihood and perplexity: the one place where a loss is computed.

Training minimises it, evaluations report it. Only positions in the loss mask pass through the output layer, which
saves most of its work for short replies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from chat_app.tokenization.encoder import IGNORE_INDEX, Example
from chat_app.training.collator import PackingCollator

# Settings of a model that change its logits after the output layer: then its own forward must be used.
_CHANGES_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
TOKENS_A_BATCH = 8192
PIECE_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Total negative log-likelihood in nats, and over how many tokens."""

    total: float
    tokens: int

    @property
    def loss(self) -> float:
        """Nats a learned token."""
        return self.total / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp(total negative log-likelihood / number of learned tokens)."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits(self) -> float:
        """The total in bits."""
        return self.total / math.log(2)


def precision_context(device: str, precision: str) -> AbstractContextManager[Any]:
    """Autocast to bfloat16 or float16 on a device ("cpu", "cuda", "mps"), or nothing for float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device, dtype=getattr(torch, precision))


def sum_loss(model: Any, batch: dict[str, Tensor], direct: bool = True, sparing: bool = False) -> Tensor:
    """The summed negative log-likelihood of all learned tokens of a batch of `PackingCollator`: a float32 scalar, nats.

    Args:
        direct: go past the model's own forward where that is possible; False where something wraps it.
        sparing: keep no logits for the backward pass; they are recomputed a piece at a time.
    """
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "shift_labels", "tokens")}
    labels = batch["labels"]
    learned = labels != IGNORE_INDEX
    if direct and not any(getattr(model.config, name, None) for name in _CHANGES_LOGITS):
        hidden = model.base_model(**inputs, use_cache=False).last_hidden_state[learned]  # [learned tokens, width]
        return _output_loss(model.get_output_embeddings(), hidden, labels[learned], sparing)
    logits = model(**inputs, use_cache=False).logits[learned]
    return functional.cross_entropy(logits.float(), labels[learned], reduction="sum")


def _output_loss(output: Any, hidden: Tensor, labels: Tensor, sparing: bool) -> Tensor:
    """The summed loss of hidden states [learned tokens, width]. The logits of a large vocabulary are the biggest
    tensors of a step: where no way back needs them, and where memory is short, they exist a piece at a time."""

    def loss(states: Tensor, wanted: Tensor) -> Tensor:
        return functional.cross_entropy(output(states).float(), wanted, reduction="sum")

    if torch.is_grad_enabled() and not sparing:
        return loss(hidden, labels)
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for states, wanted in zip(hidden.split(PIECE_TOKENS), labels.split(PIECE_TOKENS), strict=True):
        if torch.is_grad_enabled():
            total = total + checkpoint(loss, states, wanted, use_reentrant=False)
        else:
            total = total + loss(states, wanted)
    return total


@torch.inference_mode()
def likelihood(
    model: Any,
    rows: Sequence[Example],
    collator: PackingCollator,
    precision: str = "float32",
    tokens_a_batch: int = TOKENS_A_BATCH,
) -> Likelihood:
    """The likelihood of rows under a model, which is in evaluation mode meanwhile.

    Args:
        tokens_a_batch: fewer need less memory.

    Raises:
        ValueError: nothing in the rows is learned.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    try:
        with precision_context(device.type, precision):
            for part in group_by_length(rows, tokens_a_batch):
                batch = {name: value.to(device) for name, value in collator(part).items()}
                total += float(sum_loss(model, batch))
                tokens += sum(row.loss_tokens for row in part)
    finally:
        model.train(was_training)
    if not tokens:
        raise ValueError("nothing to learn in these rows")
    return Likelihood(total, tokens)


def group_by_length(rows: Sequence[Example], tokens: int = TOKENS_A_BATCH) -> Iterator[list[Example]]:
    """Rows in groups of similar length, about `tokens` tokens each."""
    group: list[Example] = []
    size = 0
    for row in sorted(rows, key=lambda one: -len(one.ids)):
        if group and size + len(row.ids) > tokens:
            yield group
            group, size = [], 0
        group.append(row)
        size += len(row.ids)
    if group:
        yield group
