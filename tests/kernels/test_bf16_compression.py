"""Weights of 16 bits in 12: nothing is lost, whatever the weights are, and nothing else changes."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
import torch

from chat_app.kernels import packed_weights as module
from chat_app.kernels.compilation import get_kernel
from chat_app.kernels.layout import TILE_K
from chat_app.kernels.packed_weights import PackedWeights, common_exponents
from chat_app.system.cpu import target_processor

OUTPUTS, INPUTS = 200, 160  # The last tile is not full, and the inputs are no multiple of TILE_K.

pytestmark = [
    pytest.mark.dependencies,
    pytest.mark.skipif(not target_processor().has_amx, reason="only with AMX"),
]


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def laid_out(weight: torch.Tensor) -> PackedWeights:
    """Two matrices: the weight [in, out], and another after it."""
    kernel = get_kernel(False)
    kernel.result()
    weights = PackedWeights([(weight.shape[1], weight.shape[0]), (64, 64)], eight_bits=False, kernel=kernel)
    weights.pack(0, weight, numbers(9, weight.shape[1]))
    weights.pack(1, numbers(8, 64, 64), None)
    return weights


def in_sixteen(weight: torch.Tensor, monkeypatch: Any) -> PackedWeights:
    with monkeypatch.context() as patch:
        patch.setattr(module, "common_exponents", lambda _: None)
        return laid_out(weight)


def with_strays(share: float) -> torch.Tensor:
    """Weights of which so many are far smaller or larger than the others, or 0."""
    weight = numbers(1, INPUTS, OUTPUTS)
    strays = torch.tensor([0.0, -0.0, 1e-12, -3e20, 1e-40, 1e30])
    chosen = torch.rand(weight.shape, generator=torch.Generator().manual_seed(2)) < share
    picked = strays[torch.arange(weight.numel()).view(weight.shape) % len(strays)]
    return torch.where(chosen, picked, weight)


WEIGHTS = {
    "usual": numbers(1, INPUTS, OUTPUTS),
    "strays": with_strays(0.004),
    "transposed": numbers(1, OUTPUTS, INPUTS).T,
    "few": torch.tensor([1.0, -1.0])[torch.arange(INPUTS * OUTPUTS).view(INPUTS, OUTPUTS) % 2],
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_no_weight_changes(name):
    weight = WEIGHTS[name]
    weights = laid_out(weight)
    assert set(weights._codebooks) == {0, 1}
    assert torch.equal(weights.unpack(0)[:, :OUTPUTS], weight.bfloat16())


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 16, 17, 32, 100])
@pytest.mark.parametrize("name", WEIGHTS)
def test_products_are_those_of_sixteen_bits_to_the_last_bit(name, count, monkeypatch):
    weight = WEIGHTS[name]
    short, plain = laid_out(weight), in_sixteen(weight, monkeypatch)
    assert short._codebooks
    assert not plain._codebooks
    for number, inputs in ((0, INPUTS), (1, 64)):
        rows = numbers(count, count, inputs)
        result = short.multiply(number, rows)
        assert torch.equal(result, plain.multiply(number, rows))
        assert result.isfinite().all()


def test_a_row_is_the_same_in_any_company():
    weights, rows = laid_out(WEIGHTS["strays"]), numbers(3, 40, INPUTS)
    together = weights.multiply(0, rows)
    for start, end in ((0, 1), (3, 10), (5, 21)):
        assert torch.equal(weights.multiply(0, rows[start:end]), together[start:end])


def test_a_fourth_of_the_memory_is_saved(monkeypatch):
    weight = numbers(1, 8 * TILE_K, 640)
    assert laid_out(weight).memory_bytes < 0.8 * in_sixteen(weight, monkeypatch).memory_bytes


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_too_many_strays_leave_all_as_it_is(share, monkeypatch):
    weight = with_strays(share)
    weights = laid_out(weight)
    assert set(weights._codebooks) == {1}
    rows = numbers(1, 5, INPUTS)
    assert torch.equal(weights.multiply(0, rows), in_sixteen(weight, monkeypatch).multiply(0, rows))


def test_strays_that_no_sample_shows_leave_all_as_it_is(monkeypatch):
    monkeypatch.setattr(module, "common_exponents", lambda _: common_exponents(WEIGHTS["usual"]))
    weight = numbers(1, INPUTS, OUTPUTS) * 1e-9
    weights = laid_out(weight)
    assert set(weights._codebooks) == {1}
    assert torch.equal(weights.unpack(0)[:, :OUTPUTS], weight.bfloat16())


def test_weights_that_are_no_numbers_stay_so():
    weight = numbers(1, INPUTS, OUTPUTS)
    weight[3, 5], weight[70, 6] = float("nan"), float("inf")
    weights = laid_out(weight)
    assert 0 in weights._codebooks
    result = weights.multiply(0, numbers(1, 1, INPUTS))[0]
    assert result.isfinite().logical_not().nonzero().flatten().tolist() == [5, 6]


def test_a_matrix_of_zeros_has_common_uppers_too():
    assert 0 in common_exponents(torch.zeros(4, 4))


def test_a_kernel_that_is_missing_leaves_all_as_it_is():
    weights = PackedWeights([(64, 64)], eight_bits=False, kernel=Future())
    weights.pack(0, numbers(8, 64, 64), None)
    assert not weights._codebooks
