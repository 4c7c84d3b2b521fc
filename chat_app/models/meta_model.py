"""A model on torch's device "meta": all its tensors with their shapes, without memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM

from chat_app.models.building import building
from chat_app.models.transformers_internals import config_from

_FILLING = frozenset({"normal_", "trunc_normal_", "uniform_", "kaiming_uniform_", "zeros_", "ones_", "constant_"})


def build_meta_model(config: Mapping[str, Any]) -> Any:
    """The model that a config.json describes, on the device "meta": it takes no memory.

    Raises:
        Exception: of any kind, because the config may be any file.
    """
    described = config_from(config)
    with building(), torch.device("meta"), _Unfilled():
        return AutoModelForCausalLM.from_config(described)


class _Unfilled(TorchFunctionMode):
    """Skips the initialization of weights, which has no effect on the device "meta" but would take most of the time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch instead of `func`."""
        settings = kwargs or {}
        tensor = args[0] if args else settings.get("tensor")
        if getattr(func, "__name__", "") in _FILLING and isinstance(tensor, torch.Tensor) and tensor.is_meta:
            return tensor
        return func(*args, **settings)
