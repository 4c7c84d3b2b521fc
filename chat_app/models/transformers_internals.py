"""The internals of transformers, beyond its documented interface, that this project depends on.

Two more modules depend on a part of it as a whole: `training.trainer` subclasses the Trainer, and `gpt2_fast_loading`
replaces the loading of weights and tokenizers.

All of it has tests that carry the mark `dependencies`, which `.ci/run` runs with the oldest and the newest version that
pyproject.toml allows.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor
from transformers import AttentionInterface, Cache, DynamicCache
from transformers.activations import NewGELUActivation
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:  # Importing it takes seconds, and only a training needs it.
    from transformers import Trainer, TrainingArguments

__all__ = [
    "Attention", "Conv1D", "accepts", "batching_obstacle", "cache_argument", "can_crop", "checkpoint_activations",
    "config_from", "copy_cache", "is_gelu_new", "is_known", "replaced_attention", "silence", "sliding_windows",
    "use_one_gpu", "writes_text",
]  # fmt: skip

CACHE_ARGUMENTS = ("cache", "past_key_values")  # The name since 5.24, and the one before.
REPLACED = "chat_app_attention"  # The name of an attention for transformers, and of the argument that brings it.
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")  # Their frequencies follow from the longest sequence of a batch.


def accepts(model: Any, argument: str) -> bool:
    """Whether the model's `forward` has an argument of that name."""
    return argument in inspect.signature(model.forward).parameters


def cache_argument(model: Any) -> str | None:
    """What the model's `forward` calls its KV cache, or None where it has none.

    The signature decides, not the version of transformers, because a custom subclass may keep the old name. A model
    whose layers only have recurrent states has no KV cache: several of them compute a second chunk of a prompt as if it
    were the first.
    """
    layers = DynamicCache(config=model.config).layers  # Empty where all layers are of the ordinary kind.
    if layers and not any(isinstance(layer, DynamicLayer) for layer in layers):
        return None
    return next((name for name in CACHE_ARGUMENTS if accepts(model, name)), None)


def can_crop(cache: DynamicCache) -> bool:
    """Whether a cache can be truncated: not where layers have recurrent states, or a sliding window."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def copy_cache(cache: DynamicCache, config: Any, length: int) -> DynamicCache:
    """A new cache with the first `length` tokens of one that can be truncated."""
    other = DynamicCache(config=config)
    for index, layer in enumerate(cache.layers):
        if isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None:
            other.update(layer.keys[..., :length, :], layer.values[..., :length, :], index)
    return other


def batching_obstacle(model: Any) -> str | None:
    """Why tokens of several sequences cannot be computed in one row of the model's input; None where nothing is known
    against it. Whether the model then does it right, only a trial can show."""
    if not accepts(model, "position_ids"):
        return "it counts the positions of tokens by itself"
    if getattr(model.config, "_attn_implementation", None) != "sdpa":
        return "its attention cannot be exchanged"
    for layer in DynamicCache(config=model.config).layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            return "its layers keep more than keys and values"
    if any(_depends_on_length(module) for module in model.modules()):
        return "its rotary embedding depends on the length of a sequence"
    return None


def sliding_windows(model: Any) -> dict[int, int]:
    """The layers that attend to the newest tokens only, and to how many."""
    layers = enumerate(DynamicCache(config=model.config).layers)
    return {index: layer.sliding_window for index, layer in layers if isinstance(layer, DynamicSlidingWindowLayer)}


def _depends_on_length(module: Any) -> bool:
    kinds = getattr(module, "rope_type", None)  # A dict where kinds of layers have their own.
    return any(kind in LENGTH_DEPENDENT_ROPE for kind in (kinds.values() if isinstance(kinds, dict) else (kinds,)))


class Attention(Protocol):
    """Attention of one forward pass that takes the place of a model's own, its cache included."""

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Take the keys and values of a layer's new tokens, each [1, heads, tokens, width]."""

    def attend(self, queries: Tensor, scale: float | None, sliding_window: int | None) -> Tensor:
        """The attention of the layer that was appended last: [1, heads, tokens, width] -> [1, tokens, heads, width]."""


@contextmanager
def replaced_attention(model: Any, attention: Attention) -> Iterator[dict[str, Any]]:
    """Have a model use another attention. Yields the arguments of `forward` that bring it there.

    Only calls with these arguments may be made meanwhile. Masks are left to the attention.
    """
    config, name = model.config, cache_argument(model)
    own = config._attn_implementation
    config._attn_implementation = REPLACED
    try:
        yield {str(name): _AppendOnly(attention), "use_cache": True, REPLACED: attention}
    finally:
        config._attn_implementation = own


class _AppendOnly(Cache):
    """What models take for their cache: it passes on what is new, and returns only that."""

    def __init__(self, attention: Attention):
        super().__init__(layers=[])
        self._attention = attention

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self._attention.append(layer_idx, key_states, value_states)
        return key_states, value_states


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float | None = None, **others: Any
) -> tuple[Tensor, None]:
    """What models call with `replaced_attention`. Keys and values are in the attention already."""
    attention: Attention = others[REPLACED]
    return attention.attend(query, scaling, others.get("sliding_window")), None


AttentionInterface.register(REPLACED, _attend)  # Only models that ask for the name get it.


def is_known(kind: Any) -> bool:
    """Whether transformers itself has a model of that `model_type`, so that no code of others is needed for it."""
    return kind in CONFIG_MAPPING_NAMES


def writes_text(kind: Any) -> bool:
    """Whether a `model_type` is a causal language model."""
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def config_from(settings: Mapping[str, Any]) -> Any:
    """The configuration that a config.json describes."""
    return CONFIG_MAPPING[settings["model_type"]].from_dict(dict(settings))


def is_gelu_new(module: Any) -> bool:
    """Whether a module is GPT-2's activation, written there as eight operations."""
    return type(module) is NewGELUActivation


def checkpoint_activations(model: Any) -> None:
    """Compute activations again on the way back instead of keeping them. The old name, which Python 3.10's newest
    transformers has, warns where there is the new one."""
    old = "gradient_checkpointing_enable"
    enable = getattr(model, "activation_checkpointing_enable", None) or getattr(model, old)
    enable({"use_reentrant": False})


def silence(trainer: Trainer) -> None:
    """Take away the callbacks that print."""
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    for unwanted in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(unwanted)


def use_one_gpu(arguments: TrainingArguments) -> None:
    """Keep the Trainer from dividing batches between the threads of one process where there are several GPUs."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
