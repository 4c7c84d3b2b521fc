"""Chooses the device and the precision: from what this computer has, and what it is fast at."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from chat_app.config.fields import AUTOMATIC
from chat_app.errors import SettingError
from chat_app.system.cpu import bfloat16_is_fast


def resolve_device(device: str) -> str:
    """ "cpu", "cuda" or "mps" for a setting.

    Raises:
        SettingError: this computer does not have it.
    """
    if device == AUTOMATIC:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind = device.partition(":")[0]
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(kind, False):
        raise SettingError("device", f"There is no '{device}' here.", advice="Choose automatic or cpu.")
    return kind


def resolve_precision(precision: str, device: str) -> str:
    """The dtype to compute in: bfloat16 where the GPU or processor is fast at it, which is measured on a processor."""
    if precision != AUTOMATIC:
        return precision
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if device == "cpu" and bfloat16_is_fast() else "float32"


def spread_over_gpus(device: str, taken: Mapping[str, int]) -> str:
    """Of several GPUs the one on which the other models take least; the setting itself where it names a device, or
    where there are not several.

    Args:
        taken: device, such as "cuda:1" -> bytes.
    """
    if device not in (AUTOMATIC, "cuda") or not torch.cuda.is_available() or torch.cuda.device_count() < 2:
        return device
    return min((f"cuda:{number}" for number in range(torch.cuda.device_count())), key=lambda one: taken.get(one, 0))
