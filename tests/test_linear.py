"""The layers against plain products, and that a row does not care what stands beside it."""

from __future__ import annotations

import pytest
import torch

from chat_app import linear
from chat_app.linear import LARGEST, EightBitLinear, PackedLinear, PlainLinear, WeightOnlyLinear, quantized

KINDS = [
    pytest.param(EightBitLinear, marks=pytest.mark.skipif(not EightBitLinear.works(), reason="not on this processor")),
    WeightOnlyLinear,
]


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(96, 160, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def bias() -> torch.Tensor:
    return torch.randn(96, generator=torch.Generator().manual_seed(2)) * 100


def rows_of(count: int) -> torch.Tensor:
    rows = torch.randn(count, 160, generator=torch.Generator().manual_seed(count)) * 20
    rows[:, 0], rows[:, 1] = LARGEST, -LARGEST
    return rows


@pytest.mark.parametrize("count", [1, 3, 4, 5, 40])
@pytest.mark.parametrize("kind", KINDS)
def test_eight_bits_lose_only_what_the_weights_lose(kind, weight, bias, count):
    rows = rows_of(count)
    numbers, scales = quantized(weight)
    exact = rows @ (numbers.float() * scales[:, None]).T + bias
    result = kind(weight, bias)(rows)
    assert result.dtype == torch.float32
    error = (result - exact).norm() / exact.norm()
    assert error < (2e-4 if kind is EightBitLinear else 5e-3)  # The second rounds its input to bfloat16.
    assert (result - (rows @ weight.T + bias)).norm() / exact.norm() < 1e-2


@pytest.mark.skipif(not EightBitLinear.works(), reason="not on this processor")
def test_a_row_is_the_same_in_any_company(weight, bias):
    layer, rows = EightBitLinear(weight, bias), rows_of(64)
    together = layer(rows)
    for at in (0, 1, 17, 63):
        assert torch.equal(layer(rows[at : at + 1])[0], together[at])
    assert torch.equal(layer(rows[3:12]), together[3:12])


def test_quantized_weights_are_near(weight):
    numbers, scales = quantized(weight)
    assert numbers.dtype == torch.int8
    assert numbers.abs().amax(1).eq(127).all()
    assert ((numbers * scales[:, None] - weight).abs() <= scales[:, None] / 2 + 1e-7).all()


def test_rows_of_zeros_are_no_trouble():
    numbers, scales = quantized(torch.zeros(3, 8))
    assert not numbers.any()
    assert torch.isfinite(scales).all()


def test_a_processor_that_rounds_is_found_out(monkeypatch):
    monkeypatch.setattr(EightBitLinear, "_product", lambda self, rows: torch.zeros(rows.shape[0], 48))
    assert linear.eight_bit_layer() is WeightOnlyLinear


@pytest.mark.skipif(not linear.packing_works(), reason="not on this processor")
@pytest.mark.parametrize("count", [1, 8, 100])
def test_packed_weights_are_bfloat16s(weight, bias, count):
    rows = rows_of(count)
    expected = torch.nn.functional.linear(rows.bfloat16(), weight.bfloat16(), bias.bfloat16())
    torch.testing.assert_close(PackedLinear(weight, bias)(rows), expected, rtol=1.6e-2, atol=1e-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_layers_share_their_weights(weight, bias, dtype):
    own, rows = weight.T.to(dtype), rows_of(3)
    layer = PlainLinear(own, bias.to(dtype))
    torch.testing.assert_close(layer(rows), rows.to(dtype) @ own + bias.to(dtype), rtol=1.6e-2, atol=1)
    own.zero_()
    assert torch.equal(layer(rows), bias.to(dtype).expand(3, -1))
    assert layer.memory_bytes == (160 * 96 + 96) * own.element_size()
