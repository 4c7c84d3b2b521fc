"""The weights of a GPT-2 in the layout that its forward pass reads: shared, or packed. Knows no steps."""

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
from chat_app.kernels.packed_weights import PackedLinear, PackedWeights

WeightLayout = Literal["shared", "packed", "8-bit"]
"""How an engine keeps the weights of a model; `gpt2_weights` explains it."""

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
        """The size of its tensors."""
        return 8 * self.weight.numel()


@dataclass(frozen=True)
class Block:
    """One layer.

    Attributes:
        ln_1, qkv_proj, out_proj: of the attention. ln_2, fc_in, fc_out: of the MLP.
        scale: the factor of attention scores.
    """

    ln_1: Norm
    qkv_proj: Linear
    out_proj: Linear
    ln_2: Norm
    fc_in: Linear
    fc_out: Linear
    scale: float

    @property
    def memory_bytes(self) -> int:
        """The size of its tensors."""
        linear = (self.qkv_proj, self.out_proj, self.fc_in, self.fc_out)
        return sum(one.memory_bytes for one in (*linear, self.ln_1, self.ln_2))


def is_plain_gpt2(model: Any) -> bool:
    """Whether a model is a GPT-2 of transformers that nothing was built into, such as adapters. Its linear
    layers may be those of bitsandbytes."""
    if type(model) is not transformers.GPT2LMHeadModel or model.config.add_cross_attention:
        return False
    if getattr(model, "peft_config", None):
        return False
    if _is_quantized(model) and getattr(model, "quantization_method", None) != "bitsandbytes":
        return False
    linears = [one for layer in model.transformer.h for one in _linears(layer)]
    return bool(linears) and all(linear_of(one) is not None for one in (*linears, model.lm_head))


def can_pack_model(model: Any) -> bool:
    """Whether a model's weights can be packed."""
    return is_plain_gpt2(model) and not _is_quantized(model) and can_pack(model.config.to_dict())


@dataclass(frozen=True)
class Weights:
    """A whole GPT-2.

    Attributes:
        embedding: [vocabulary, width]. positions: [window, width].
        memory_bytes: the size of its tensors.
        packed: the matrices of the blocks and of the head, in their order, if they are packed.
    """

    embedding: Tensor
    positions: Tensor
    blocks: tuple[Block, ...]
    ln_f: Norm
    head: Linear
    activation: Activation
    memory_bytes: int
    packed: PackedWeights | None = None


def gpt2_weights(model: Any, layout: WeightLayout) -> Weights:
    """The weights of a model.

    Args:
        layout: "shared": the model's own, which stay what they are, be it in 8 or 4 bits of bitsandbytes. "packed"
            (bfloat16) and "8-bit": packed for the kernels, on the processor and if `can_pack_model`; the model has no
            weights afterwards.

    Raises:
        ModelError: the weights are no numbers.
    """
    inner = model.transformer
    tied = model.lm_head.weight is inner.wte.weight
    packed: PackedWeights | None = None
    layers: Sequence[Linear]
    if layout == "shared":
        layers = _shared_linears(model)
    else:
        packed = _pack_weights(model, layout == "8-bit")
        if layout == "8-bit":
            _check_finite(packed, [one for one in inner.parameters() if not (tied and one is inner.wte.weight)])
        inner.wte.weight.data = inner.wte.weight.data.to(torch.bfloat16)
        layers = [PackedLinear(packed, number) for number in range(len(packed.sizes))]
    return _assemble(model, layers, packed)


def gpt2_weights_by(model: Any, make: Callable[[Tensor, Tensor | None], Linear]) -> Weights:
    """The weights of a model with other linear layers, made from its matrices [in, out], of any type, and biases."""
    modules = [one for layer in model.transformer.h for one in _linears(layer)]
    layers = [make(one.weight.detach(), one.bias.detach()) for one in modules]
    return _assemble(model, [*layers, make(model.lm_head.weight.detach().T, None)])


def _assemble(model: Any, layers: Sequence[Linear], packed: PackedWeights | None = None) -> Weights:
    """A model's weights with these linear layers: those of the blocks, and the head."""
    config, inner = model.config, model.transformer
    scales = [_attention_scale(config, index) for index in range(config.n_layer)]
    tied = model.lm_head.weight is inner.wte.weight
    fours = (layers[at : at + 4] for at in range(0, len(layers) - 1, 4))
    blocks = tuple(_block(*one) for one in zip(inner.h, fours, scales, strict=True))
    ln_f, head = _norm(inner.ln_f), layers[-1]
    embedding, positions = inner.wte.weight.detach(), inner.wpe.weight.detach()
    parts: list[Any] = [*blocks, ln_f, *([] if tied else [head]), *([packed] if packed else [])]
    memory = sum(one.memory_bytes for one in parts)
    memory += sum(one.numel() * one.element_size() for one in (embedding, positions))
    activation = _activation(config.activation_function, inner.h[0].mlp.act)
    return Weights(embedding, positions, blocks, ln_f, head, activation, memory, packed)


def _shared_linears(model: Any) -> list[Linear]:
    """The linear layers of a model on its own weights: those of the blocks, and the head."""
    modules = [*(one for layer in model.transformer.h for one in _linears(layer)), model.lm_head]
    layers = [layer for one in modules if (layer := linear_of(one)) is not None]
    assert len(layers) == len(modules), "a plain GPT-2"
    return layers


def _block(layer: Any, linears: Sequence[Linear], scale: float) -> Block:
    qkv_proj, out_proj, fc_in, fc_out = linears
    return Block(_norm(layer.ln_1), qkv_proj, out_proj, _norm(layer.ln_2), fc_in, fc_out, scale)


def _pack_weights(model: Any, eight_bits: bool) -> PackedWeights:
    """Pack the matrices of a model; it gives the memory of each back as soon as that is packed."""
    inner = model.transformer
    linears = [one for layer in inner.h for one in _linears(layer)]
    head = model.lm_head.weight
    packed = PackedWeights([*(tuple(reversed(one.weight.shape)) for one in linears), tuple(head.shape)], eight_bits)
    packed.pack(len(linears), head.detach().T, None)
    for number, one in enumerate(linears):
        packed.pack(number, one.weight.detach(), one.bias.detach())
        one.weight.data = one.weight.data.new_empty(0)
    if head is not inner.wte.weight:
        head.data = head.data.new_empty(0)
    return packed


def _check_finite(packed: PackedWeights, others: Iterable[Tensor]) -> None:
    """Refuse damaged weights: an int8 cannot carry a NaN on to where it would be noticed, but its scale tells."""
    ends = (end for one in others if one.numel() for end in torch.aminmax(one.detach()))
    if not packed.are_finite or not all(math.isfinite(end) for end in ends):
        raise ModelError("The model's weights are damaged: some are no numbers.", advice="Take another model.")


def _is_quantized(model: Any) -> bool:
    return getattr(model.config, "quantization_config", None) is not None


def _attention_scale(config: Any, index: int) -> float:
    scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
    return float(scale / (index + 1) if config.scale_attn_by_inverse_layer_idx else scale)


def _linears(layer: Any) -> list[Any]:
    return [layer.attn.c_attn, layer.attn.c_proj, layer.mlp.c_fc, layer.mlp.c_proj]


def _norm(module: Any) -> Norm:
    return Norm(module.weight.detach().float(), module.bias.detach().float(), module.eps)


def _activation(name: str, module: Activation) -> Activation:
    """The function between a layer's two products; torch's own where it is the same one, which is faster."""
    return partial(functional.gelu, approximate="tanh") if name == "gelu_new" else module
