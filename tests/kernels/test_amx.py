"""What is compiled for AMX computes the same where AMX is emulated; so the kernels for it are tested on any x86-64."""

from __future__ import annotations

import copy
import platform
from concurrent.futures import Future
from typing import Any

import pytest
import torch

from chat_app.inference.gpt2.model_runner import GPT2ModelRunner
from chat_app.inference.model_runner import Chunk
from chat_app.kernels.packed_weights import PackedWeights, quantize_per_channel
from tests.inference.gpt2.test_model_runner import logits_of, model_of
from tests.inference.test_engine import ids_of
from tests.kernels.amx_emulation import AMX, compile_emulated

SIZES = [(200, 160), (64, 96), (130, 160)]  # The last tile of two of them is not full.

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="AMX is emulated with instructions of such processors"),
]


@pytest.fixture(scope="module", params=["bfloat16", "8-bit"])
def emulated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, Future[Any]]:
    """Whether weights have 8 bits, and the kernel for them. It has the registers of one thread."""
    ready: Future[Any] = Future()
    eight_bits = request.param == "8-bit"
    ready.set_result(compile_emulated(eight_bits, tmp_path_factory.mktemp("amx") / "kernel.ll"))
    return eight_bits, ready


@pytest.fixture(autouse=True)
def _has_amx(monkeypatch: pytest.MonkeyPatch, emulated: tuple[bool, Future[Any]]) -> None:
    monkeypatch.setattr("chat_app.kernels.packed_weights.target_processor", lambda: AMX)
    monkeypatch.setattr("chat_app.kernels.packed_weights.get_kernel", lambda eight_bits: emulated[1])


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_outliers(weight: torch.Tensor) -> torch.Tensor:
    """Some weights are far smaller or larger than the others, or 0."""
    odd = torch.tensor([0.0, -0.0, 1e-12, -3e3, 1e-40, 1e3])
    chosen = torch.rand(weight.shape, generator=torch.Generator().manual_seed(2)) < 0.004
    return torch.where(chosen, odd[torch.arange(weight.numel()).view(weight.shape) % len(odd)], weight)


def pack(eight_bits: bool, matrices: list[torch.Tensor]) -> PackedWeights:
    weights = PackedWeights([(one.shape[1], one.shape[0]) for one in matrices], eight_bits)
    for number, one in enumerate(matrices):
        weights.pack(number, one, numbers(9, one.shape[1]))
    return weights


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 15, 16, 17, 33, 100])
def test_products_are_those_of_the_stored_weights(emulated, count):
    eight_bits, _ = emulated
    matrices = [with_outliers(numbers(number, inputs, outputs)) for number, (outputs, inputs) in enumerate(SIZES)]
    weights = pack(eight_bits, matrices)
    for number, matrix in enumerate(matrices):
        whole, scales = quantize_per_channel(matrix)
        stored = whole * scales if eight_bits else matrix.bfloat16().float()
        rows = numbers(count, count, len(matrix))
        expected = rows @ stored + numbers(9, matrix.shape[1])
        result = weights.multiply(number, rows)
        assert (result - expected).norm() < 1e-4 * expected.norm()
        assert torch.equal(weights.multiply(number, rows[:1]), result[:1]), "a row is the same in any company"


def test_compression_loses_nothing_and_changes_no_product(emulated, monkeypatch):
    eight_bits, _ = emulated
    matrices = [with_outliers(numbers(1, 160, 200)), numbers(2, 200, 160).T, numbers(3, 64, 64)]
    compressed = pack(eight_bits, matrices)
    assert set(compressed._codebooks) == (set() if eight_bits else {0, 1, 2})
    monkeypatch.setattr("chat_app.kernels.packed_weights.common_exponents", lambda _: None)
    plain = pack(eight_bits, matrices)
    assert not plain._codebooks
    for number, matrix in enumerate(matrices):
        if not eight_bits:
            assert torch.equal(compressed.unpack(number)[:, : matrix.shape[1]], matrix.bfloat16())
        for count in (1, 8, 16, 17):
            rows = numbers(count, count, len(matrix))
            assert torch.equal(compressed.multiply(number, rows), plain.multiply(number, rows))


def test_too_many_outliers_leave_a_matrix_uncompressed(emulated):
    eight_bits, _ = emulated
    spread = numbers(1, 160, 200) * torch.logspace(-20, 20, 200)
    assert set(pack(eight_bits, [spread, numbers(1, 64, 64)])._codebooks) == (set() if eight_bits else {1})


def test_the_decode_step_gives_the_logits_of_transformers(emulated):
    eight_bits, _ = emulated
    model, ids = model_of(), ids_of(1, 40)
    runner = GPT2ModelRunner(copy.deepcopy(model), 128, "8-bit" if eight_bits else "packed")
    assert runner._decoder is not None
    assert runner._decoder.is_ready
    kv_cache, other = runner.new_kv_cache(), runner.new_kv_cache()
    for start, end in ((0, 1), (1, 17), (17, 39)):
        runner.step([Chunk(ids[start:end], None, kv_cache, False)])
    runner.step([Chunk(ids[:9], None, other, False)])
    first, second = runner.step([Chunk(ids[39:], None, kv_cache, True), Chunk(ids[9:10], None, other, True)])
    for logits, length in ((first, 40), (second, 10)):
        expected = logits_of(model, ids[:length], None)
        assert (logits - expected).norm() < 0.05 * expected.norm()
