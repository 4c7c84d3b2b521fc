"""Layers on a model's own weights, as they are and as bitsandbytes keeps them, and whole models of such layers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.inference.engine import Engine, make_model_runner
from chat_app.inference.gpt2.linear import EightBitLinear, FourBitLinear, PlainLinear, linear_of
from chat_app.inference.gpt2.model_runner import GPT2ModelRunner
from chat_app.inference.gpt2.weights import can_pack_model, is_plain_gpt2
from chat_app.inference.loaded_model import load
from chat_app.inference.model_runner import Chunk, TransformersModelRunner
from chat_app.inference.request import Request
from chat_app.models.loading import load_parts
from tests.inference.test_engine import expected, ids_of, request

pytestmark = pytest.mark.dependencies

WINDOW = 128


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_layers_share_their_weights(dtype):
    weight, bias, rows = torch.randn(160, 96).to(dtype), torch.randn(96).to(dtype), torch.randn(3, 160)
    layer = PlainLinear(weight, bias)
    torch.testing.assert_close(layer(rows), rows.to(dtype) @ weight + bias, rtol=1.6e-2, atol=1)
    weight.zero_()
    assert torch.equal(layer(rows), bias.expand(3, -1))
    assert layer.memory_bytes == (160 * 96 + 96) * weight.element_size()


def eight_bit(bias: bool = True) -> Any:
    quantized = pytest.importorskip("bitsandbytes", reason="quantization needs bitsandbytes").nn
    torch.manual_seed(0)
    return quantized.Linear8bitLt(160, 96, bias=bias, has_fp16_weights=False, threshold=6.0).to("cpu").eval()


def four_bit() -> Any:
    quantized = pytest.importorskip("bitsandbytes", reason="quantization needs bitsandbytes").nn
    torch.manual_seed(0)
    return quantized.Linear4bit(128, 96, quant_type="nf4", compute_dtype=torch.float32).to("cpu").eval()


def rows_with_outliers() -> torch.Tensor:
    rows = torch.randn(8, 160, generator=torch.Generator().manual_seed(1))
    rows[3, 7], rows[5, 9], rows[6] = 50, -30, 0
    return rows


def as_numbers(module: Any) -> torch.Tensor:
    """The weights of a module in 8 bits, [out, in]."""
    scales = module.weight.SCB if module.state.SCB is None else module.state.SCB
    return module.weight.data.double() * scales.double()[:, None] / 127


@pytest.mark.parametrize("bias", [True, False])
def test_in_8_bits_only_the_weights_are_rounded(bias):
    module, rows = eight_bit(bias), rows_with_outliers()
    layer = linear_of(module)
    assert isinstance(layer, EightBitLinear)
    exact = rows.double() @ as_numbers(module).T + (module.bias.detach().double() if bias else 0)
    largest = rows.abs().amax(1, keepdim=True)
    bound = largest / 64516 * as_numbers(module).abs().sum(1) + 1e-5
    assert bool(((layer(rows) - exact).abs() <= bound).all())
    with torch.inference_mode():
        theirs = module(rows)  # From now on the module keeps its scales elsewhere.
    assert float((layer(rows) - exact).abs().max()) < 0.1 * float((theirs - exact).abs().max())
    assert torch.equal(linear_of(module)(rows), layer(rows))
    assert layer.memory_bytes == 160 * 96 + 4 * 96 + (4 * 96 if bias else 0)


def test_in_8_bits_a_row_gives_the_same_bits_alone_and_beside_outliers():
    module, rows = eight_bit(), rows_with_outliers()
    layer = linear_of(module)
    together = layer(rows)
    for at in range(len(rows)):
        assert torch.equal(layer(rows[at : at + 1])[0], together[at])
    with torch.inference_mode():
        assert not torch.equal(module(rows[:1])[0], module(rows)[0])  # Those of the library do not.


def test_damaged_rows_stay_damaged_in_8_bits():
    rows = rows_with_outliers()
    rows[0, 0], rows[1, 1] = torch.nan, torch.inf
    found = linear_of(eight_bit())(rows)
    assert bool(found[:2].isnan().all())
    assert bool(found[2:].isfinite().all())


def test_in_4_bits_the_library_computes():
    module = four_bit()
    layer = linear_of(module)
    assert isinstance(layer, FourBitLinear)
    rows = torch.randn(5, 128)
    with torch.inference_mode():
        found = layer(rows)
        assert torch.equal(found, module(rows))
        assert found.dtype == torch.float32
    scales = sum(one.nbytes for one in module.weight.quant_state.as_dict().values() if isinstance(one, torch.Tensor))
    assert layer.memory_bytes == 128 * 96 // 2 + 4 * 96 + scales


def test_what_only_resembles_a_layer_is_none():
    class Adapted(Conv1D):
        """Its forward pass may be anything."""

    assert isinstance(linear_of(Conv1D(8, 4)), PlainLinear)
    assert linear_of(Adapted(8, 4)) is None
    assert linear_of(torch.nn.Embedding(4, 8)) is None
    wide = pytest.importorskip("bitsandbytes").nn.Linear8bitLt(32, 32, has_fp16_weights=True)  # Rounded at each use.
    assert linear_of(wide) is None


@pytest.fixture
def quantized(make_folder: Callable[..., Path], tmp_path: Path) -> Callable[..., Any]:
    """Loads a tiny GPT-2 in "8-bit" or "4-bit" of bitsandbytes; what is not quantized is in float32."""
    pytest.importorskip("bitsandbytes", reason="quantization needs bitsandbytes")
    folder = make_folder(width=64)

    def make(precision: str) -> Any:
        config = LoadConfig(precision=precision, device="cpu")
        return load_parts(str(folder), config, Paths(tmp_path / "home"), compute_in="float32")[0]

    return make


def unpacked(model: Any, plain: Any) -> Any:
    """A model with the numbers that those of another in 8 bits stand for."""
    for one, other in zip(plain.modules(), model.modules(), strict=True):
        if isinstance(one, Conv1D):
            one.weight.data = as_numbers(other).T.float().contiguous()
    return plain


def logits_of(runner: Any, ids: list[int], types: list[int] | None) -> torch.Tensor:
    kv_cache = runner.new_kv_cache()
    runner.step([Chunk(ids[:-1], types and types[:-1], kv_cache, False)])
    return runner.step([Chunk(ids[-1:], types and types[-1:], kv_cache, True)])[0].float()


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("precision", ["8-bit", "4-bit"])
def test_logits_of_quantized_models_are_near_those_of_transformers(quantized, precision, typed):
    model = quantized(precision)
    runner = make_model_runner(model, WINDOW)
    assert isinstance(runner, GPT2ModelRunner)
    assert runner.memory_bytes < 0.7 * sum(4 * one.numel() for one in quantized("float32").parameters())
    ids, types = ids_of(1, 40), [5] * 20 + [6] * 20 if typed else None
    found, theirs = logits_of(runner, ids, types), logits_of(TransformersModelRunner(model), ids, types)
    # In 8 bits transformers rounds what goes in, too.
    assert float((found - theirs).norm() / theirs.norm()) < (0.1 if precision == "8-bit" else 1e-5)


def test_models_in_8_bits_write_what_their_weights_say(quantized, make_folder, tmp_path):
    model = quantized("8-bit")
    plain = load_parts(str(make_folder("other", width=64)), LoadConfig(precision="float32"), Paths(tmp_path / "home"))
    reference = unpacked(model, plain[0])
    torch.testing.assert_close(
        logits_of(make_model_runner(model, WINDOW), ids_of(1, 40), None),
        logits_of(TransformersModelRunner(reference), ids_of(1, 40), None),
        rtol=0,
        atol=2e-2,
    )
    engine = Engine(model, WINDOW)
    for seed in range(4):
        assert list(engine.stream(request(ids_of(seed)))) == expected(reference, ids_of(seed))
    engine.close()


def test_models_in_4_bits_write_what_transformers_writes(quantized):
    model = quantized("4-bit")
    engine = Engine(model, WINDOW)
    for seed in range(4):
        assert list(engine.stream(request(ids_of(seed)))) == expected(model, ids_of(seed))
    engine.close()


@pytest.mark.parametrize("precision", ["8-bit", "4-bit"])
def test_company_changes_no_reply_of_a_quantized_model(quantized, precision):
    engine = Engine(quantized(precision), WINDOW)

    def reply(seed: int) -> list[int]:
        sampling = SamplingConfig(seed=seed, top_k=50)
        return list(engine.stream(Request(ids_of(seed), None, None, sampling, frozenset(), frozenset(), 24)))

    alone = [reply(seed) for seed in range(16)]
    engine.close()
    engine = Engine(quantized(precision), WINDOW)  # It remembers no prompt.
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(reply, range(16)))
    engine.close()
    assert sum(one == other for one, other in zip(alone, together, strict=True)) >= 15  # The rest is rounding.


@pytest.mark.parametrize("precision", ["8-bit", "4-bit"])
def test_quantized_models_are_not_moved_into_tiles(quantized, precision):
    model = quantized(precision)
    assert is_plain_gpt2(model)
    assert not can_pack_model(model)
    model.quantization_method = "something else"
    assert not is_plain_gpt2(model)


def test_a_model_loaded_in_4_bits_steps_jointly(make_folder, tmp_path):
    pytest.importorskip("bitsandbytes", reason="quantization needs bitsandbytes")
    folder = make_folder(width=64)
    loaded = load(str(folder), LoadConfig(precision="4-bit", device="cpu"), Paths(tmp_path / "home"))
    assert isinstance(loaded.engine._runner, GPT2ModelRunner)
    assert loaded.precision == "4-bit"
    loaded.engine.close()


@pytest.mark.parametrize("precision", ["8-bit", "4-bit"])
def test_adapters_on_a_quantized_model_are_computed_by_transformers(quantized, precision):
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(quantized(precision), LoraConfig(task_type="CAUSAL_LM", target_modules=["c_proj"]))
    model = wrapped.get_base_model()
    assert isinstance(make_model_runner(model, WINDOW), TransformersModelRunner)
    assert linear_of(model.transformer.h[0].mlp.c_proj) is None  # PEFT's has the name of the library's.
