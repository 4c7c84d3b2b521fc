"""The weights of a GPT-2 in the form that its forward pass reads: as they are, packed, or in 8 bits. Knows no steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from transformers import GPT2LMHeadModel

from chat_app.errors import ModelError
from chat_app.linear import LARGEST, Linear, PackedLinear, PlainLinear, eight_bit_layer, packing_works

Form = Literal["shared", "packed", "8-bit"]
SHRINKING = frozenset({"gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "swish"})
"""Activations whose result is never larger than what they are given, as 8-bit weights need it."""

_MARGIN = 1.12  # Rounding a row of weights to 8 bits makes it longer by at most so much.
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Norm:
    """A layer norm of float32 rows."""

    weight: Tensor
    bias: Tensor | None
    epsilon: float

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, width] -> [n, width]."""
        return functional.layer_norm(rows, self.weight.shape, self.weight, self.bias, self.epsilon)

    @property
    def memory_bytes(self) -> int:
        """What its numbers take."""
        return 4 * self.weight.numel() * (1 if self.bias is None else 2)


@dataclass(frozen=True)
class Block:
    """One layer.

    Attributes:
        scale: what the products of queries and keys are multiplied by.
        shrink: what the numbers between `up` and `down` are multiplied by, [4 * width], or None.
    """

    before_attention: Norm
    queries_keys_values: Linear
    joined: Linear
    before_mlp: Norm
    up: Linear
    down: Linear
    scale: float
    shrink: Tensor | None = None

    @property
    def memory_bytes(self) -> int:
        """What its numbers take."""
        linear = (self.queries_keys_values, self.joined, self.up, self.down)
        return sum(one.memory_bytes for one in (*linear, self.before_attention, self.before_mlp))


def _is_gpt2(model: Any) -> bool:
    return type(model) is GPT2LMHeadModel


def is_plain_gpt2(model: Any) -> bool:
    """Whether a model is a GPT-2 of transformers that nothing was built into, such as adapters or quantized layers."""
    if not _is_gpt2(model) or model.config.add_cross_attention:
        return False
    if getattr(model.config, "quantization_config", None) is not None or getattr(model, "peft_config", None):
        return False
    kinds: set[str] = {type(layer.attn.c_attn).__name__ for layer in model.transformer.h}
    return kinds <= {"Conv1D"}


@dataclass(frozen=True)
class Weights:
    """A whole GPT-2.

    Attributes:
        embedding: [vocabulary, width]. positions: [window, width].
        memory_bytes: what its numbers take.
    """

    embedding: Tensor
    positions: Tensor
    blocks: tuple[Block, ...]
    last_norm: Norm
    head: Linear
    activation: Activation
    memory_bytes: int


def gpt2_weights(model: Any, form: Form) -> Weights:
    """The weights of a model.

    Args:
        form: "shared": the model's own, which stay what they are. "packed" (bfloat16) and "8-bit", on the processor
            only: in the form it reads fastest; they are moved over, and the model is empty afterwards.

    Raises:
        ModelError: the weights are no numbers.
    """
    if form == "packed" and not packing_works():
        form = "shared"
    config, inner = model.config, model.transformer
    tied = model.lm_head.weight is inner.wte.weight
    scales = [_attention_scale(config, index) for index in range(config.n_layer)]
    last_norm, head = _norm(inner.ln_f), model.lm_head.weight.detach()
    if form == "8-bit":
        blocks, last_norm, output = _eight_bit(model, scales)
        inner.wte.weight.data = inner.wte.weight.data.to(torch.bfloat16)
    elif form == "packed":
        blocks = [_plain_block(layer, scale, _packed) for layer, scale in zip(inner.h, scales, strict=True)]
        output = PackedLinear(head, None)
    else:
        blocks = [_plain_block(layer, scale, PlainLinear) for layer, scale in zip(inner.h, scales, strict=True)]
        output = PlainLinear(head.T, None)
    if form != "shared":
        _empty(model)
    embedding, positions = inner.wte.weight.detach(), inner.wpe.weight.detach()
    parts: list[Any] = [*blocks, last_norm, *([] if form == "shared" and tied else [output])]
    memory = sum(one.memory_bytes for one in parts)
    memory += sum(one.numel() * one.element_size() for one in (embedding, positions))
    activation = _activation(config.activation_function, inner.h[0].mlp.act)
    return Weights(embedding, positions, tuple(blocks), last_norm, output, activation, memory)


def _plain_block(layer: Any, scale: float, make: Callable[[Tensor, Tensor], Linear]) -> Block:
    of = [make(one.weight.detach(), one.bias.detach()) for one in _products(layer)]
    return Block(_norm(layer.ln_1), of[0], of[1], _norm(layer.ln_2), of[2], of[3], scale)


def _packed(weight: Tensor, bias: Tensor) -> Linear:
    return PackedLinear(weight.T, bias)


def _eight_bit(model: Any, scales: list[float]) -> tuple[list[Block], Norm, Linear]:
    """Layers whose inputs are within -LARGEST and LARGEST by themselves: no step has to look how large they are.

    A layer norm without its factors gives rows of a fixed length; the factors go into the weights after it. What such
    a row times a row of weights can come to is bounded by both lengths, which bounds the values and with them what the
    attention makes of them, and also what the activation gives. The weights are scaled to these bounds, and those of
    the next layer back.
    """
    make = eight_bit_layer()
    config, inner = model.config, model.transformer
    width = config.n_embd
    unit = LARGEST / math.sqrt(width)
    blocks = []
    for layer, scale in zip(inner.h, scales, strict=True):
        mix, join, up, down = (one.weight.detach().float().T for one in _products(layer))
        mix_bias, join_bias, up_bias, down_bias = (one.bias.detach().float() for one in _products(layer))
        mix, mix_bias = _after_norm(mix, mix_bias, layer.ln_1, unit)
        values = _shrink_to_fit(mix[2 * width :], mix_bias[2 * width :])
        factors = torch.cat([torch.ones(2 * width), values])
        up, up_bias = _after_norm(up, up_bias, layer.ln_2, unit)
        shrink = _shrink_to_fit(up, up_bias)
        blocks.append(
            Block(
                _fixed_norm(width, unit, layer.ln_1.eps),
                make(mix * factors[:, None], mix_bias * factors),
                make(join / values, join_bias),
                _fixed_norm(width, unit, layer.ln_2.eps),
                make(up, up_bias),
                make(down / shrink, down_bias),
                scale,
                shrink,
            )
        )
        _check_numbers(layer)
    head, head_bias = _after_norm(model.lm_head.weight.detach().float(), torch.zeros(()), inner.ln_f, unit)
    _check_numbers(inner.ln_f, inner.wte, inner.wpe, model.lm_head)
    return blocks, _fixed_norm(width, unit, inner.ln_f.eps), make(head, head_bias)


def _after_norm(weight: Tensor, bias: Tensor, norm: Any, unit: float) -> tuple[Tensor, Tensor]:
    """A layer after a norm, [out, in] and [out], with the norm's factors in it."""
    bias = bias + weight @ norm.bias.detach().float()
    return weight * (norm.weight.detach().float() / unit), bias


def _shrink_to_fit(weight: Tensor, bias: Tensor) -> Tensor:
    """Factors, [out], with which the results for rows of length LARGEST stay within -LARGEST and LARGEST."""
    bounds = _MARGIN * (LARGEST * weight.norm(dim=1) + bias.abs())
    return LARGEST / bounds.clamp_min(1e-20)


def _fixed_norm(width: int, unit: float, epsilon: float) -> Norm:
    return Norm(torch.full((width,), unit), None, epsilon)


def _check_numbers(*modules: Any) -> None:
    """Whole numbers cannot carry a NaN on to where it would be noticed."""
    if not all(bool(torch.isfinite(one).all()) for module in modules for one in module.parameters()):
        raise ModelError("The model's weights are damaged: some are no numbers.", advice="Take another model.")


def _attention_scale(config: Any, index: int) -> float:
    scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
    return float(scale / (index + 1) if config.scale_attn_by_inverse_layer_idx else scale)


def _products(layer: Any) -> list[Any]:
    return [layer.attn.c_attn, layer.attn.c_proj, layer.mlp.c_fc, layer.mlp.c_proj]


def _norm(module: Any) -> Norm:
    return Norm(module.weight.detach().float(), module.bias.detach().float(), module.eps)


def _activation(name: str, module: Activation) -> Activation:
    """The function between a layer's two products; torch's own where it is the same one, which is faster."""
    return partial(functional.gelu, approximate="tanh") if name == "gelu_new" else module


def _empty(model: Any) -> None:
    """Give the memory of the weights back that were moved over."""
    kept = {id(model.transformer.wte.weight)}
    for layer in model.transformer.h:
        for one in _products(layer):
            one.weight.data = one.weight.data.new_empty(0)
    if id(model.lm_head.weight) not in kept:
        model.lm_head.weight.data = model.lm_head.weight.data.new_empty(0)
