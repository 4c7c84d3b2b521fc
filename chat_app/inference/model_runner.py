"""A step of a model: pieces of several sequences in, the scores of their next tokens out.

Here is what every model can do, by transformers' own forward pass, one sequence after the other. Knows no requests, no
sampling and no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from chat_app.errors import ModelError
from chat_app.inference.kv_cache import LayerCaches, Memory
from chat_app.models.transformers_internals import accepts, cache_argument

PROMPT_PIECE = 384  # Tokens: by then products of matrices are as fast as they get, and nobody has to wait for long.


@dataclass(frozen=True)
class Piece:
    """The tokens of one sequence that a step computes.

    Attributes:
        ids: those that follow what `memory` has; at least one.
        types: their types, or None.
        memory: of the sequence; the step adds the tokens to it.
        is_last: whether the scores after them are wanted.
    """

    ids: list[int]
    types: list[int] | None
    memory: Any
    is_last: bool


class Forward(Protocol):
    """What the engine needs of a model.

    Attributes:
        is_joint: whether several pieces are faster in one step than one after the other.
        prompt_piece: how many tokens of prompts it computes best in a step.
        vocabulary: how many tokens it knows.
        memory_bytes: what its numbers take.
    """

    is_joint: bool
    prompt_piece: int
    vocabulary: int
    memory_bytes: int

    def new_memory(self) -> Memory:
        """An empty one."""

    def step(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """Compute pieces of different sequences. If a joint step fails, their memories are as they were.

        Returns:
            For each piece that is last, in their order: scores of the next token, [vocabulary], in float32 or the
            model's type.
        """


class TransformersForward:
    """Any causal language model of transformers.

    Raises:
        ModelError: the model has no key/value cache.
    """

    is_joint = False
    prompt_piece = PROMPT_PIECE

    def __init__(self, model: Any):
        name = cache_argument(model)
        if name is None:
            raise ModelError("This kind of model cannot be used to chat here: it keeps no key/value cache.")
        self._model, self._cache_argument = model, name
        self._last_only = {"logits_to_keep": 1} if accepts(model, "logits_to_keep") else {}
        self.vocabulary = model.get_input_embeddings().weight.shape[0]
        self.memory_bytes = tensor_bytes(model)

    def new_memory(self) -> LayerCaches:
        """An empty one."""
        return LayerCaches(self._model.config)

    @torch.inference_mode()
    def step(self, pieces: Sequence[Piece]) -> list[Tensor]:
        """As Forward."""
        scores = [self._one(piece) for piece in pieces]
        return [one for one, piece in zip(scores, pieces, strict=True) if piece.is_last]

    def _one(self, piece: Piece) -> Tensor:
        device = self._model.device
        inputs: dict[str, Any] = {"input_ids": torch.tensor([piece.ids], dtype=torch.long, device=device)}  # [1, piece]
        if piece.types is not None:
            inputs["token_type_ids"] = torch.tensor([piece.types], dtype=torch.long, device=device)
        inputs[self._cache_argument] = piece.memory.cache
        output = self._model(**inputs, **self._last_only, use_cache=True)
        piece.memory.length += len(piece.ids)
        scores: Tensor = output.logits[0, -1]
        return scores


def tensor_bytes(model: Any) -> int:
    """Bytes that the tensors of a model take; shared ones count once."""
    tensors = [*model.parameters(), *model.buffers()]
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())
