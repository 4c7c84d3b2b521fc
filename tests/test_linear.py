"""Layers on a model's own weights."""

from __future__ import annotations

import pytest
import torch

from chat_app.linear import PlainLinear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_layers_share_their_weights(dtype):
    weight, bias, rows = torch.randn(160, 96).to(dtype), torch.randn(96).to(dtype), torch.randn(3, 160)
    layer = PlainLinear(weight, bias)
    torch.testing.assert_close(layer(rows), rows.to(dtype) @ weight + bias, rtol=1.6e-2, atol=1)
    weight.zero_()
    assert torch.equal(layer(rows), bias.expand(3, -1))
    assert layer.memory_bytes == (160 * 96 + 96) * weight.element_size()
