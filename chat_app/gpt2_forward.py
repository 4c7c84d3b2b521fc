"""GPT-2's forward pass, written out for an engine: pieces of several sequences pass through the layers together, so
that the weights are read once for all of them; only the attention looks at each sequence by itself.

What is added up from layer to layer is kept in float32, whatever the weights are. Knows no requests and no text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from transformers import GPT2LMHeadModel

from chat_app.forward import Piece
from chat_app.key_values import KeyValues
from chat_app.linear import Linear, PackedLinear, PlainLinear, eight_bit_layer, packing_works

Form = Literal["shared", "packed", "8-bit"]


@dataclass(frozen=True)
class _Norm:
    weight: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, rows: Tensor) -> Tensor:
        return functional.layer_norm(rows, self.weight.shape, self.weight, self.bias, self.epsilon)

    @property
    def memory_bytes(self) -> int:
        return 8 * self.weight.numel()


@dataclass(frozen=True)
class _Block:
    """One layer. `scale` is what the products of queries and keys are multiplied by."""

    before_attention: _Norm
    queries_keys_values: Linear
    joined: Linear
    before_mlp: _Norm
    up: Linear
    down: Linear
    scale: float

    @property
    def memory_bytes(self) -> int:
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


class GPT2Forward:
    """The forward pass of one GPT-2.

    Args:
        model: for which `is_plain_gpt2` holds.
        window: the most tokens of a sequence.
        form: "shared": on the model's own weights, which stay what they are. "packed" (bfloat16) and "8-bit", on the
            processor only: in the form it reads fastest; the model's weights are moved over, it is empty afterwards.
        attention: the type of keys and values with 8-bit weights.
    """

    is_joint = True

    def __init__(self, model: Any, window: int, form: Form = "shared", attention: torch.dtype = torch.bfloat16):
        config, inner = model.config, model.transformer
        if form == "packed" and not packing_works():
            form = "shared"
        make = _maker(form)
        self.vocabulary = int(inner.wte.weight.shape[0])
        self.form = form
        self._heads, self._width = config.n_head, config.n_embd // config.n_head
        self._window = window
        numbers = inner.wte.weight.dtype
        self._attention = attention if form == "8-bit" else numbers
        self._embedding = inner.wte.weight.detach()
        self._positions = inner.wpe.weight.detach()
        tied = model.lm_head.weight is inner.wte.weight
        head = model.lm_head.weight.detach()
        self._head: Linear = PlainLinear(head.T, None) if form == "shared" else make(head.T, None)
        if form == "8-bit":
            self._embedding = self._embedding.to(torch.bfloat16)
            inner.wte.weight.data = self._embedding
        self._blocks = [_block(layer, index, config, make) for index, layer in enumerate(inner.h)]
        self._last_norm = _norm(inner.ln_f)
        self._activation = _activation(config.activation_function, inner.h[0].mlp.act)
        if form != "shared":
            _empty(model)
        parts: list[Any] = [*self._blocks, self._last_norm, *([] if form == "shared" and tied else [self._head])]
        embeddings = (self._embedding, self._positions)
        self.memory_bytes = sum(one.memory_bytes for one in parts)
        self.memory_bytes += sum(one.numel() * one.element_size() for one in embeddings)

    def new_memory(self) -> KeyValues:
        """An empty one."""
        device = self._embedding.device
        return KeyValues(len(self._blocks), self._heads, self._width, self._window, self._attention, device)

    @torch.inference_mode()
    def step(self, pieces: Sequence[Piece]) -> Tensor:
        """As Forward."""
        ordered = sorted(pieces, key=lambda piece: len(piece.ids) > 1)  # Those of one token first.
        hidden = self._embedded(ordered)  # [tokens of all pieces, width]
        attend = _Attention(ordered, self._heads, self._width)
        last = self._last_rows(pieces, ordered).to(hidden.device)
        for index, block in enumerate(self._blocks):
            mixed = block.queries_keys_values(block.before_attention(hidden)).to(self._attention)
            attended = attend(mixed, index, block.scale)
            if index == len(self._blocks) - 1:  # From here on only the rows count whose scores are wanted.
                if not len(last):
                    break
                hidden, attended = hidden[last], attended[last]
            hidden.add_(block.joined(attended))
            hidden.add_(block.down(self._activation(block.up(block.before_mlp(hidden)))))
        for piece in pieces:
            piece.memory.length += len(piece.ids)
        if not len(last):
            return torch.empty(0, self.vocabulary)
        return self._head(self._last_norm(hidden))

    def _embedded(self, pieces: Sequence[Piece]) -> Tensor:
        device = self._embedding.device
        ids = torch.tensor([token for piece in pieces for token in piece.ids], device=device)
        starts = [(piece.memory.length, len(piece.ids)) for piece in pieces]
        places = torch.tensor([at for start, length in starts for at in range(start, start + length)], device=device)
        hidden = functional.embedding(ids, self._embedding).float()
        hidden = hidden + functional.embedding(places, self._positions)
        if any(piece.types is not None for piece in pieces):
            rows: list[int] = []
            types: list[int] = []
            start = 0
            for piece in pieces:
                if piece.types is not None:
                    rows += range(start, start + len(piece.ids))
                    types += piece.types
                start += len(piece.ids)
            more = functional.embedding(torch.tensor(types, device=device), self._embedding).float()
            hidden.index_add_(0, torch.tensor(rows, device=device), more)
        return hidden

    @staticmethod
    def _last_rows(pieces: Sequence[Piece], ordered: Sequence[Piece]) -> Tensor:
        """The rows of the last tokens of the pieces that want scores, in the order of `pieces`."""
        ends: dict[int, int] = {}
        row = -1
        for piece in ordered:
            row += len(piece.ids)
            ends[id(piece)] = row
        return torch.tensor([ends[id(piece)] for piece in pieces if piece.is_last], dtype=torch.long)


class _Attention:
    """The attention of one step.

    Args:
        pieces: those of one token first.
        heads, width: of the model; width is a head's.
    """

    def __init__(self, pieces: Sequence[Piece], heads: int, width: int):
        self._heads, self._width = heads, width
        self._lengths = [len(piece.ids) for piece in pieces]
        self._singles = sum(length == 1 for length in self._lengths)
        self._views = [piece.memory.views(len(piece.ids)) for piece in pieces]
        self._masks = [_mask(piece) for piece in pieces]

    def __call__(self, mixed: Tensor, layer: int, scale: float) -> Tensor:
        """Queries, keys and values of all rows, [rows, 3 * heads * width] -> [rows, heads * width]."""
        single = self._singles
        results = []
        if single:
            parts = mixed[:single].view(single, 3, 1, self._heads, self._width).transpose(2, 3)
            queries, news = parts[:, :1].unbind(0), parts[:, 1:].unbind(0)  # Each [1 or 2, heads, 1, width].
            for query, new, (places, keys, values) in zip(queries, news, self._views, strict=False):
                places[layer].copy_(new)
                seen = functional.scaled_dot_product_attention(query, keys[layer], values[layer], scale=scale)
                results.append(seen.view(1, -1))
        start = single
        for length, view, mask in zip(self._lengths[single:], self._views[single:], self._masks[single:], strict=True):
            parts = mixed[start : start + length].view(length, 3, self._heads, self._width).permute(1, 2, 0, 3)
            places, keys, values = view
            places[layer].copy_(parts[1:])
            seen = functional.scaled_dot_product_attention(
                parts[:1], keys[layer], values[layer], attn_mask=mask, is_causal=mask is None, scale=scale
            )
            results.append(seen.transpose(1, 2).reshape(length, -1))
            start += length
        return torch.cat(results) if len(results) > 1 else results[0]


def _mask(piece: Piece) -> Tensor | None:
    """Which tokens those of a piece may see, [piece, all so far]; None: itself only, up to each."""
    length, before = len(piece.ids), piece.memory.length
    if length == 1 or not before:
        return None
    return torch.ones(length, before + length, dtype=torch.bool, device=piece.memory.device).tril_(before)


def _maker(form: Form) -> Callable[[Tensor, Tensor | None], Linear]:
    """Makes a layer from a weight [in, out] and a bias."""
    if form == "shared":
        return PlainLinear
    kind: Callable[[Tensor, Tensor | None], Linear] = PackedLinear if form == "packed" else eight_bit_layer()
    return lambda weight, bias: kind(weight.T, bias)


def _block(layer: Any, index: int, config: Any, make: Callable[[Tensor, Tensor | None], Linear]) -> _Block:
    scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
    if config.scale_attn_by_inverse_layer_idx:
        scale /= index + 1
    of = [make(one.weight.detach(), one.bias.detach()) for one in _products(layer)]
    return _Block(_norm(layer.ln_1), of[0], of[1], _norm(layer.ln_2), of[2], of[3], scale)


def _products(layer: Any) -> list[Any]:
    return [layer.attn.c_attn, layer.attn.c_proj, layer.mlp.c_fc, layer.mlp.c_proj]


def _norm(module: Any) -> _Norm:
    return _Norm(module.weight.detach().float(), module.bias.detach().float(), module.eps)


def _activation(name: str, module: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
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
