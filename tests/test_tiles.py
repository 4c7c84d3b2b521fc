"""Weights in tiles against plain products, with the compiled functions and without, and in several threads."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
import torch

from chat_app.tiles import FEW_ROWS, TiledLinear, Tiles, kernel, quantized

SIZES = [(200, 160), (64, 96), (130, 160)]  # The last tile of two of them is not full.
COUNTS = [1, 2, 3, 4, 5, 8, 9, FEW_ROWS, FEW_ROWS + 1, 100]


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(eight_bits: bool, compiled: bool) -> Tiles:
    """Tiles with every matrix of SIZES."""
    ready: Future[Any] = Future()
    if compiled:
        ready.set_result(kernel(eight_bits).result())
    tiles = Tiles(SIZES, eight_bits, ready)
    for number, (outputs, inputs) in enumerate(SIZES):
        tiles.put(number, numbers(number, inputs, outputs), numbers(9, outputs) if number else None)
    return tiles


def stored(number: int, eight_bits: bool) -> torch.Tensor:
    """What is left of a matrix when it is kept in fewer bits."""
    outputs, inputs = SIZES[number]
    weight = numbers(number, inputs, outputs)
    if not eight_bits:
        return weight.bfloat16().float()
    whole, scales = quantized(weight)
    return whole * scales


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("eight_bits", [True, False])
def test_products_are_those_of_the_stored_weights(eight_bits, compiled, count):
    tiles = filled(eight_bits, compiled)
    for number, (outputs, inputs) in enumerate(SIZES):
        rows = numbers(count, count, inputs) * 20
        bias = numbers(9, outputs) if number else torch.zeros(outputs)
        expected = rows @ stored(number, eight_bits) + bias
        result = TiledLinear(tiles, number)(rows)
        assert result.dtype == torch.float32
        few = compiled and count <= FEW_ROWS  # Else the rows are rounded to bfloat16.
        assert (result - expected).norm() / expected.norm() < (1e-4 if few else 5e-3)


@pytest.mark.parametrize("eight_bits", [True, False])
def test_a_row_is_the_same_in_any_company_and_number_of_threads(eight_bits):
    tiles, before = filled(eight_bits, True), torch.get_num_threads()
    rows = numbers(1, FEW_ROWS, 160)
    together = tiles.multiplied(0, rows)
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            assert torch.equal(tiles.multiplied(0, rows), together)
            for start, end in ((0, 1), (3, 5), (7, 15)):
                assert torch.equal(tiles.multiplied(0, rows[start:end]), together[start:end])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [1e-15, 1e-3, 1e6, 1e15])
def test_rows_of_any_size_fit_into_whole_numbers(size):
    tiles = filled(True, True)
    for rows in (torch.full((1, 160), size), numbers(4, 1, 160) * size):
        expected = rows.double() @ stored(0, True).double()
        # The largest number of a row has 15 bits; where all are as large, so many that the sum fits 32.
        assert (tiles.multiplied(0, rows).double() - expected).norm() <= 2e-4 * rows.norm() * stored(0, True).norm()


def test_what_is_no_number_stays_none():
    for bad in (float("nan"), float("inf")):
        rows = numbers(1, 1, 160)
        rows[0, 7] = bad
        for eight_bits in (True, False):
            assert not torch.isfinite(filled(eight_bits, True).multiplied(0, rows)).all()


def test_quantized_weights_are_near():
    weight = numbers(1, 160, 96)
    whole, scales = quantized(weight)
    assert whole.dtype == torch.int8
    assert whole.abs().amax(0).eq(127).all()
    assert ((whole * scales - weight).abs() <= scales / 2 + 1e-7).all()


def test_weights_of_zeros_are_no_trouble():
    whole, scales = quantized(torch.zeros(3, 8))
    assert not whole.any()
    assert torch.isfinite(scales).all()


def test_eight_bits_take_half_of_sixteen():
    assert filled(True, False).memory_bytes < 0.6 * filled(False, False).memory_bytes


def test_a_processor_that_cannot_compile_leaves_the_work_to_torch(caplog, monkeypatch):
    monkeypatch.setattr("chat_app.tiles._compile", lambda eight_bits: 1 / 0)
    failed = kernel.__wrapped__(True)
    assert isinstance(failed.exception(), ZeroDivisionError)
    tiles = Tiles(SIZES, True, failed)
    assert tiles.compiled is None
    assert "cannot be used here" in caplog.text
