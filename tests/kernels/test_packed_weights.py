"""Packed weights against plain products, with the compiled kernels and without, and in several threads."""

from __future__ import annotations

import platform
from concurrent.futures import Future
from typing import Any

import pytest
import torch

from chat_app.kernels import compilation
from chat_app.kernels.compilation import CompiledKernel, compile_in_subprocess, get_kernel, load
from chat_app.kernels.packed_weights import PackedLinear, PackedWeights, max_kernel_rows, quantize_per_channel
from chat_app.system.cpu import Processor, target_processor

pytestmark = pytest.mark.dependencies

SIZES = [(200, 160), (64, 96), (130, 160)]  # The last tile of two of them is not full.
FEW_ROWS = 96
COUNTS = [1, 2, 3, 4, 5, 8, 9, 15, 16, 17, FEW_ROWS, FEW_ROWS + 1, 100]


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(eight_bits: bool, compiled: bool, code: CompiledKernel | None = None) -> PackedWeights:
    """Packed weights with every matrix of SIZES."""
    ready: Future[Any] = Future()
    if compiled:
        ready.set_result(code or get_kernel(eight_bits).result())
    weights = PackedWeights(SIZES, eight_bits, ready)
    for number, (outputs, inputs) in enumerate(SIZES):
        weights.pack(number, numbers(number, inputs, outputs), numbers(9, outputs) if number else None)
    return weights


def stored(number: int, eight_bits: bool) -> torch.Tensor:
    """What is left of a matrix when it is kept in fewer bits."""
    outputs, inputs = SIZES[number]
    weight = numbers(number, inputs, outputs)
    if not eight_bits:
        return weight.bfloat16().float()
    whole, scales = quantize_per_channel(weight)
    return whole * scales


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("eight_bits", [True, False])
def test_products_are_those_of_the_stored_weights(eight_bits, compiled, count):
    weights = filled(eight_bits, compiled)
    for number, (outputs, inputs) in enumerate(SIZES):
        rows = numbers(count, count, inputs) * 20
        bias = numbers(9, outputs) if number else torch.zeros(outputs)
        expected = rows @ stored(number, eight_bits) + bias
        result = PackedLinear(weights, number)(rows)
        assert result.dtype == torch.float32
        few = compiled and count <= max_kernel_rows()  # Else the rows are rounded to bfloat16.
        assert (result - expected).norm() / expected.norm() < (1e-4 if few else 5e-3)


@pytest.mark.parametrize("eight_bits", [True, False])
def test_a_row_is_the_same_in_any_company_and_number_of_threads(eight_bits):
    weights, before = filled(eight_bits, True), torch.get_num_threads()
    rows = numbers(1, FEW_ROWS, 160)
    together = weights.multiply(0, rows)
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            assert torch.equal(weights.multiply(0, rows), together)
            for start, end in ((0, 1), (3, 5), (7, 15)):
                assert torch.equal(weights.multiply(0, rows[start:end]), together[start:end])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [1e-15, 1e-3, 1e6, 1e15])
def test_rows_of_any_size_fit_into_whole_numbers(size):
    weights = filled(True, True)
    for rows in (torch.full((1, 160), size), numbers(4, 1, 160) * size):
        expected = rows.double() @ stored(0, True).double()
        # The largest number of a row has 15 bits; where all are as large, so many that the sum fits 32.
        assert (weights.multiply(0, rows).double() - expected).norm() <= 2e-4 * rows.norm() * stored(0, True).norm()


def test_what_is_no_number_stays_none():
    for bad in (float("nan"), float("inf")):
        rows = numbers(1, 1, 160)
        rows[0, 7] = bad
        for eight_bits in (True, False):
            assert not torch.isfinite(filled(eight_bits, True).multiply(0, rows)).all()


def test_quantized_weights_are_near():
    weight = numbers(1, 160, 96)
    whole, scales = quantize_per_channel(weight)
    assert whole.dtype == torch.int8
    assert whole.abs().amax(0).eq(127).all()
    assert ((whole * scales - weight).abs() <= scales / 2 + 1e-7).all()


def test_weights_of_zeros_are_no_trouble():
    whole, scales = quantize_per_channel(torch.zeros(3, 8))
    assert not whole.any()
    assert torch.isfinite(scales).all()


def test_eight_bits_take_half_of_sixteen():
    assert filled(True, False).memory_bytes < 0.6 * filled(False, False).memory_bytes


@pytest.mark.parametrize("eight_bits", [True, False])
def test_the_compiled_function_and_torch_lay_weights_out_alike(eight_bits):
    by_code, by_torch = (filled(eight_bits, compiled) for compiled in (True, False))
    for number, (outputs, _) in enumerate(SIZES):
        compiled, plain = (weights.unpack(number)[:, :outputs] for weights in (by_code, by_torch))
        assert torch.equal(compiled, plain)
    assert torch.equal(by_code._all_floats, by_torch._all_floats)


def without(*parts: str) -> Processor:
    """A processor that this one can stand in for: it lacks some of what this one has."""
    here = target_processor()
    gone = {one for one in here.features if one.startswith(parts)}
    return Processor("x86-64", here.features - gone, here.lacks | gone)


OTHERS = {
    "a server's": without("amx"),
    "a laptop's": without("amx", "avx512", "avxvnni"),
    "an old one's": Processor("x86-64", frozenset({"sse2"}), frozenset({"avx", "avx2"})),
}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="it stands in for processors of this kind only")
@pytest.mark.parametrize("eight_bits", [True, False])
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) for name in OTHERS])
def test_code_for_other_processors_computes_the_same(name, eight_bits, tmp_path, monkeypatch):
    file = tmp_path / "other.o"
    compile_in_subprocess(eight_bits, file, OTHERS[name])
    here, code = filled(eight_bits, True), load(file)
    monkeypatch.setattr("chat_app.kernels.packed_weights.target_processor", lambda: OTHERS[name])
    there = filled(eight_bits, True, code)
    assert not there._codebooks
    for number, (_, inputs) in enumerate(SIZES):
        for count in (1, 2, 3, 5, 8, 9, 17):
            rows = numbers(count, count, inputs)
            one, other = here.multiply(number, rows), there.multiply(number, rows)
            assert (one - other).norm() <= (2e-6 if eight_bits else 2e-5) * one.norm()


def test_a_thread_that_cannot_be_had_keeps_nobody_waiting(monkeypatch):
    weights, before = filled(True, True), torch.get_num_threads()
    submit, left = weights._team._pool.submit, [1]

    def refusing(*work: Any) -> Future[Any]:
        if not left:
            raise RuntimeError("can't start new thread")
        left.pop()
        return submit(*work)

    monkeypatch.setattr(weights._team._pool, "submit", refusing)
    try:
        torch.set_num_threads(3)
        with pytest.raises(RuntimeError, match="new thread"):
            weights.multiply(0, numbers(1, 20, 160))
    finally:
        torch.set_num_threads(before)


def test_a_damaged_file_is_refused(tmp_path):
    file = tmp_path / "kernel.o"
    file.write_bytes(bytes(100))
    with pytest.raises(ValueError, match="damaged"):
        load(file)


def test_a_processor_that_cannot_compile_leaves_the_work_to_torch(caplog, monkeypatch, tmp_path):
    monkeypatch.setattr("chat_app.kernels.compilation._file", lambda *_: tmp_path / "missing" / "kernel.o")
    monkeypatch.setattr("chat_app.kernels.compilation.sys.executable", "/no/such/python")
    failed = compilation._start_kernel.__wrapped__(True)
    assert isinstance(failed.exception(), OSError)
    weights = PackedWeights(SIZES, True, failed)
    assert weights.kernel is None
    assert "cannot be used here" in caplog.text
