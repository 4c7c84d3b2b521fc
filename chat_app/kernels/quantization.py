"""Weights in fewer bits: 8-bit integers with a scale for each output, bfloat16, and the codebook that compresses it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from chat_app.kernels.layout import CODEBOOK_SIZE, MIN_ABS_MAX

MAX_OUTLIER_SHARE = 1 / 128  # Of the weights; writing more outliers back would take longer than reading saves.
_SAMPLES, _SAMPLE = 64, 1024  # How many runs of a matrix are sampled, and weights of a run.


def quantize_per_channel(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric 8-bit quantization: int8 [in, out] from -127 to 127, and scales, float32 [out]."""
    weight = weight.float()
    low, high = torch.aminmax(weight, dim=0)
    scales = torch.maximum(high, -low).clamp_min_(MIN_ABS_MAX).mul_(1 / 127)
    return (weight * (1 / scales)).round_().to(torch.int8), scales


def bf16_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The bits of the weights as bfloat16, int16 [in, out], and scales of 1, float32 [out]."""
    ones = torch.ones(weight.shape[1], dtype=torch.float32, device="cpu")
    return weight.to(torch.bfloat16).view(torch.int16), ones


def common_exponents(weight: Tensor) -> Any | None:
    """The codebook of a matrix, float32 [in, out]: the sign/exponent bytes that nearly all of its weights have.

    Returns:
        uint8 [CODEBOOK_SIZE]: neighbouring exponent bytes from the least on, first without a sign and then with one.
        None if a sample of the weights has too many outliers.
    """
    # Runs, so that few pages of a file are read for it; by numpy, as torch's threads would take longer to start.
    flat = (weight.flatten() if weight.is_contiguous() else weight.T.flatten()).numpy()
    step = max(len(flat) // _SAMPLES, 1)
    bits = np.concatenate([flat[start : start + _SAMPLE] for start in range(0, len(flat), step)]).view(np.uint32)
    counts = np.bincount(bits >> np.uint32(24) & np.uint32(127), minlength=128)
    covered = np.convolve(counts, np.ones(CODEBOOK_SIZE // 2, np.int64), "valid")
    least = int(covered.argmax())
    if covered[least] < (1 - MAX_OUTLIER_SHARE) * len(bits):
        return None
    positive = np.arange(least, least + CODEBOOK_SIZE // 2, dtype=np.uint8)
    return np.concatenate([positive, positive | 128])
