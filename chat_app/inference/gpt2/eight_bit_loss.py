"""What 8-bit weights cost a GPT-2: by how much they raise its perplexity. Measures, and chooses nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from chat_app.inference.gpt2.attention import Attention
from chat_app.inference.gpt2.model_runner import embed, run_layers
from chat_app.inference.gpt2.weights import gpt2_weights_by
from chat_app.inference.kv_cache import ContiguousKVCache
from chat_app.inference.model_runner import Chunk
from chat_app.kernels.packed_weights import quantize_per_channel
from chat_app.tokenization.encoder import Example

MAX_TOKENS = 256  # Of the text: enough for two digits, and so few that it takes a second with 124 million weights.
_ROWS = 64  # Of logits that are compared at once.


@torch.inference_mode()
def measure_perplexity_rise(model: Any, examples: Sequence[Example], window: int) -> float:
    """By what part the perplexity rises when the weights of a GPT-2 are packed in 8 bits: 0.001 is 0.1 %.

    Every token after each beginning of the text counts, weighted by the probability that the exact model gives it: it
    is the perplexity of what this model would write there itself. So a few hundred tokens are enough, and the language
    of the text matters little. With only the tokens that do follow, chance alone moves the result of so short a text
    by more than the loss. The logarithm of the perplexities' ratio is the Kullback-Leibler divergence of both models.

    Args:
        model: for which `can_pack_model` holds, before it is packed.
        examples: a text, which is cut to MAX_TOKENS. Its labels do not matter.
        window: the most tokens of a sequence.

    Returns:
        NaN if there is no text, or the model's numbers are none.
    """
    if not examples:
        return math.nan
    exact, rounded = (
        _compute_logits(model, _Exact, examples, window),
        _compute_logits(model, _Rounded, examples, window),
    )
    total = 0.0
    for start in range(0, len(exact), _ROWS):
        one, other = (logits[start : start + _ROWS].log_softmax(1) for logits in (exact, rounded))
        total += float((one.exp() * (one - other)).sum())
    return math.expm1(total / len(exact))


class _Exact:
    """A layer on weights as they are.

    Args:
        weight: [in, out], of any float type.
        bias: [out] or None.
    """

    memory_bytes = 0

    def __init__(self, weight: Tensor, bias: Tensor | None):
        self._weight, self._bias = weight, bias

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, in] -> [n, out] in float32."""
        result = rows @ self._weight.float()
        return result if self._bias is None else result.add_(self._bias.float())


class _Rounded(_Exact):
    """A layer on weights as they are after they were packed in 8 bits. One matrix is in memory at a time."""

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, in] -> [n, out] in float32."""
        whole, scales = quantize_per_channel(self._weight)
        result = (rows @ whole.float()).mul_(scales)
        return result if self._bias is None else result.add_(self._bias.float())


def _compute_logits(model: Any, linear: type[_Exact], examples: Sequence[Example], window: int) -> Tensor:
    """The logits after each token of the text, float32 [tokens, vocabulary]."""
    weights = gpt2_weights_by(model, linear)
    if linear is _Rounded:
        weights = replace(weights, embedding=weights.embedding.to(torch.bfloat16))  # As it is beside packed weights.
    heads, layers = model.config.n_head, len(weights.blocks)
    chunks, left = [], MAX_TOKENS
    for one in examples:
        count = min(len(one.ids), window, left)
        if count:
            width = model.config.n_embd // heads
            kv_cache = ContiguousKVCache(layers, heads, width, window, torch.float32)
            types = None if one.types is None else one.types[:count]
            chunks.append(Chunk(one.ids[:count], types, kv_cache, True))
        left -= count
    chunks.sort(key=lambda chunk: len(chunk.ids) > 1)  # Attention takes those of one token first.
    attend = Attention(chunks, heads, model.config.n_embd // heads)
    return run_layers(weights, embed(weights, chunks), attend, torch.float32).float()
