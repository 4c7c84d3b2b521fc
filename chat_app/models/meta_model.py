"""A model that has all its tensors and none of their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM

from chat_app.models.building import building
from chat_app.models.transformers_internals import config_from

_FILLING = frozenset({"normal_", "trunc_normal_", "uniform_", "kaiming_uniform_", "zeros_", "ones_", "constant_"})


def empty_model(config: Mapping[str, Any]) -> Any:
    """The model that a config.json describes, on the device "meta": it takes no memory.

    Raises:
        Exception: of any kind: a config is somebody's file.
    """
    described = config_from(config)
    with building(), torch.device("meta"), _Unfilled():
        return AutoModelForCausalLM.from_config(described)


class _Unfilled(TorchFunctionMode):
    """Leaves tensors as they are that would be filled with chance: without memory this changes nothing, and takes most
    of the time that making a model takes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What torch does instead of calling `func`."""
        settings = kwargs or {}
        tensor = args[0] if args else settings.get("tensor")
        if getattr(func, "__name__", "") in _FILLING and isinstance(tensor, torch.Tensor) and tensor.is_meta:
            return tensor
        return func(*args, **settings)
