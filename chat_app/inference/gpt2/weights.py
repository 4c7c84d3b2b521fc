"""The weights of a GPT-2 in the form that its forward pass reads: as they are, packed, or in 8 bits. Knows no steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import transformers
from torch import Tensor
from torch.nn import functional

from chat_app.errors import ModelError
from chat_app.inference.gpt2.linear import Linear, linear_of
from chat_app.kernels.layout import can_pack
from chat_app.kernels.packed_weights import TiledLinear, Tiles

Form = Literal["shared", "packed", "8-bit"]

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Norm:
    """A layer norm of float32 rows."""

    weight: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, width] -> [n, width]."""
        return functional.layer_norm(rows, self.weight.shape, self.weight, self.bias, self.epsilon)

    @property
    def memory_bytes(self) -> int:
        """What its numbers take."""
        return 8 * self.weight.numel()


@dataclass(frozen=True)
class Block:
    """One layer.

    Attributes:
        scale: what the products of queries and keys are multiplied by.
    """

    before_attention: Norm
    queries_keys_values: Linear
    joined: Linear
    before_mlp: Norm
    up: Linear
    down: Linear
    scale: float

    @property
    def memory_bytes(self) -> int:
        """What its numbers take."""
        linear = (self.queries_keys_values, self.joined, self.up, self.down)
        return sum(one.memory_bytes for one in (*linear, self.before_attention, self.before_mlp))


def is_plain_gpt2(model: Any) -> bool:
    """Whether a model is a GPT-2 of transformers that nothing was built into, such as adapters. Its products may be
    those of bitsandbytes."""
    if type(model) is not transformers.GPT2LMHeadModel or model.config.add_cross_attention:
        return False
    if getattr(model, "peft_config", None):
        return False
    if _is_quantized(model) and getattr(model, "quantization_method", None) != "bitsandbytes":
        return False
    products = [one for layer in model.transformer.h for one in _products(layer)]
    return bool(products) and all(linear_of(one) is not None for one in (*products, model.lm_head))


def fits_tiles(model: Any) -> bool:
    """Whether a model's weights can be moved into tiles."""
    return is_plain_gpt2(model) and not _is_quantized(model) and can_pack(model.config.to_dict())


@dataclass(frozen=True)
class Weights:
    """A whole GPT-2.

    Attributes:
        embedding: [vocabulary, width]. positions: [window, width].
        memory_bytes: what its numbers take.
        tiles: where the products are that the blocks and the head have in tiles, in their order, or None.
    """

    embedding: Tensor
    positions: Tensor
    blocks: tuple[Block, ...]
    last_norm: Norm
    head: Linear
    activation: Activation
    memory_bytes: int
    tiles: Tiles | None = None


def gpt2_weights(model: Any, form: Form) -> Weights:
    """The weights of a model.

    Args:
        form: "shared": the model's own, which stay what they are, be it in 8 or 4 bits of bitsandbytes. "packed"
            (bfloat16) and "8-bit", on the processor and for what `fits_tiles` only: in tiles; they are moved over, and
            the model is empty afterwards.

    Raises:
        ModelError: the weights are no numbers.
    """
    config, inner = model.config, model.transformer
    scales = [_attention_scale(config, index) for index in range(config.n_layer)]
    tied = model.lm_head.weight is inner.wte.weight
    tiles: Tiles | None = None
    layers: Sequence[Linear]
    if form == "shared":
        layers = _shared(model)
    else:
        tiles = _moved(model, form == "8-bit")
        if form == "8-bit":
            _check_numbers(tiles, [one for one in inner.parameters() if not (tied and one is inner.wte.weight)])
        inner.wte.weight.data = inner.wte.weight.data.to(torch.bfloat16)
        layers = [TiledLinear(tiles, number) for number in range(len(tiles.sizes))]
    fours = (layers[at : at + 4] for at in range(0, len(layers) - 1, 4))
    blocks = tuple(_block(*one) for one in zip(inner.h, fours, scales, strict=True))
    last_norm, head = _norm(inner.ln_f), layers[-1]
    embedding, positions = inner.wte.weight.detach(), inner.wpe.weight.detach()
    parts: list[Any] = [*blocks, last_norm, *([] if tied else [head]), *([tiles] if tiles else [])]
    memory = sum(one.memory_bytes for one in parts)
    memory += sum(one.numel() * one.element_size() for one in (embedding, positions))
    activation = _activation(config.activation_function, inner.h[0].mlp.act)
    return Weights(embedding, positions, blocks, last_norm, head, activation, memory, tiles)


def _shared(model: Any) -> list[Linear]:
    """The products of a model where they are: those of the layers, and the head."""
    modules = [*(one for layer in model.transformer.h for one in _products(layer)), model.lm_head]
    layers = [layer for one in modules if (layer := linear_of(one)) is not None]
    assert len(layers) == len(modules), "a plain GPT-2"
    return layers


def _block(layer: Any, products: Sequence[Linear], scale: float) -> Block:
    mix, join, up, down = products
    return Block(_norm(layer.ln_1), mix, join, _norm(layer.ln_2), up, down, scale)


def _moved(model: Any, eight_bits: bool) -> Tiles:
    """The products of a model in tiles; the model gives the memory of each back as soon as it has moved."""
    inner = model.transformer
    products = [one for layer in inner.h for one in _products(layer)]
    head = model.lm_head.weight
    tiles = Tiles([*(tuple(reversed(one.weight.shape)) for one in products), tuple(head.shape)], eight_bits)
    tiles.put(len(products), head.detach().T, None)
    for number, one in enumerate(products):
        tiles.put(number, one.weight.detach(), one.bias.detach())
        one.weight.data = one.weight.data.new_empty(0)
    if head is not inner.wte.weight:
        head.data = head.data.new_empty(0)
    return tiles


def _check_numbers(tiles: Tiles, others: Iterable[Tensor]) -> None:
    """Whole numbers cannot carry a NaN on to where it would be noticed, but their scales tell."""
    ends = (end for one in others if one.numel() for end in torch.aminmax(one.detach()))
    if not tiles.are_numbers or not all(math.isfinite(end) for end in ends):
        raise ModelError("The model's weights are damaged: some are no numbers.", advice="Take another model.")


def _is_quantized(model: Any) -> bool:
    return getattr(model.config, "quantization_config", None) is not None


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
