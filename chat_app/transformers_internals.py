"""What this project knows of the inside of transformers, beyond its documented interface. Nothing else relies on it.

Each piece has a test that carries the mark `dependencies`, which `.ci/run` runs with the oldest and the newest version
that pyproject.toml allows.
"""

from __future__ import annotations

import inspect
from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

CACHE_ARGUMENTS = ("cache", "past_key_values")  # The name since 5.24, and the one before.


def accepts(model: Any, argument: str) -> bool:
    """Whether the model's `forward` has an argument of that name."""
    return argument in inspect.signature(model.forward).parameters


def cache_argument(model: Any) -> str | None:
    """What the model's `forward` calls its KV cache, or None where it has none.

    The signature is asked, not the version of transformers: a subclass of somebody else's may have kept the old name.
    A model whose layers only keep states has no keys and values either: several of them compute a second piece of a
    prompt as if it were the first.
    """
    layers = DynamicCache(config=model.config).layers  # Empty where all layers are of the ordinary kind.
    if layers and not any(isinstance(layer, DynamicLayer) for layer in layers):
        return None
    return next((name for name in CACHE_ARGUMENTS if accepts(model, name)), None)


def can_crop(cache: DynamicCache) -> bool:
    """Whether the newest tokens can be taken out of a cache: not where layers keep states, or only a window."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def copy_cache(cache: DynamicCache, config: Any, length: int) -> DynamicCache:
    """The first `length` tokens of a cache that can be cropped, in one of its own."""
    other = DynamicCache(config=config)
    for index, layer in enumerate(cache.layers):
        if isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None:
            other.update(layer.keys[..., :length, :], layer.values[..., :length, :], index)
    return other
