"""Our own forward pass of GPT-2 against that of transformers, in every layout of the weights."""

from __future__ import annotations

import copy
import platform
from concurrent.futures import Future
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from chat_app.errors import ModelError
from chat_app.inference.engine import Engine, generate_tokens, make_model_runner
from chat_app.inference.gpt2.compiled_decoder import MAX_TOKENS
from chat_app.inference.gpt2.model_runner import GPT2ModelRunner
from chat_app.inference.gpt2.weights import is_plain_gpt2
from chat_app.inference.model_runner import Chunk, TransformersModelRunner, tensor_bytes
from chat_app.kernels.compilation import compile_in_subprocess, get_kernel, load
from chat_app.kernels.layout import ACTIVATIONS, can_pack
from chat_app.kernels.packed_weights import PackedWeights, max_kernel_rows
from tests.inference.test_engine import expected, ids_of, request
from tests.kernels.test_packed_weights import OTHERS

pytestmark = pytest.mark.slow_file

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "untied": {"tie_word_embeddings": False},
    "relu": {"activation_function": "relu"},
    "unscaled": {"scale_attn_weights": False, "initializer_range": 0.1},
    "inverse": {"scale_attn_by_inverse_layer_idx": True},
    "narrow": {"n_inner": 40},
    "epsilon": {"layer_norm_epsilon": 1e-2},
}


def model_of(**changes: Any) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    settings = {"vocab_size": 300, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128} | changes
    config = GPT2Config(**{"initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 0} | settings)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # Norms and biases that do something.
            if ".ln_" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def logits_of(model: Any, ids: list[int], types: list[int] | None) -> torch.Tensor:
    kinds = None if types is None else torch.tensor([types])
    with torch.no_grad():
        return model(torch.tensor([ids]), token_type_ids=kinds).logits[0, -1].float()


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_transformers(variant, typed):
    model = model_of(**VARIANTS[variant])
    runner = make_model_runner(model, 128)
    assert isinstance(runner, GPT2ModelRunner)
    ids, types = ids_of(1, 40), [5] * 20 + [6] * 20 if typed else None
    kv_cache = runner.new_kv_cache()
    for start, end in ((0, 1), (1, 17), (17, 39), (39, 40)):  # Alone, in chunks, the last by itself.
        chunk = Chunk(ids[start:end], types and types[start:end], kv_cache, end == 40)
        logits = runner.step([chunk])
    assert kv_cache.length == 40
    torch.testing.assert_close(logits[0], logits_of(model, ids, types), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernels", ["compiled", "being compiled", "off"])
@pytest.mark.parametrize(("layout", "most"), [("packed", 0.03), ("8-bit", 0.03)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_other_weight_layouts_are_near(variant, layout, most, kernels, monkeypatch):
    if kernels == "compiled":
        get_kernel(layout == "8-bit").result()
    elif kernels == "off":
        monkeypatch.setenv("CHAT_APP_KERNELS", "off")
    else:
        monkeypatch.setattr("chat_app.kernels.packed_weights.get_kernel", lambda eight_bits: Future())
    model = model_of(**VARIANTS[variant])
    ids, types = ids_of(2, 50), [3] * 50
    expected_logits = logits_of(model, ids, types)
    moved = copy.deepcopy(model).to(torch.bfloat16) if layout == "packed" else copy.deepcopy(model)
    runner = GPT2ModelRunner(moved, 128, layout)
    kv_cache = runner.new_kv_cache()
    runner.step([Chunk(ids[:30], types[:30], kv_cache, False)])
    runner.step([Chunk(ids[30:40], types[30:40], kv_cache, False)])
    for at in range(40, 50):
        logits = runner.step([Chunk(ids[at : at + 1], types[at : at + 1], kv_cache, True)])
    assert float((logits[0] - expected_logits).norm() / expected_logits.norm()) < most


@pytest.mark.long
@pytest.mark.skipif(platform.machine() != "x86_64", reason="it stands in for processors of this kind only")
@pytest.mark.parametrize("layout", ["packed", "8-bit"])
@pytest.mark.parametrize("name", sorted(OTHERS))
def test_the_kernel_for_other_processors_gives_the_same_logits(name, layout, tmp_path, monkeypatch):
    def logits() -> list[torch.Tensor]:
        runner = GPT2ModelRunner(model.to(torch.bfloat16) if layout == "packed" else copy.deepcopy(model), 128, layout)
        kv_caches = [runner.new_kv_cache() for _ in range(3)]
        first = runner.step([Chunk(ids_of(seed, 9 + seed), None, one, True) for seed, one in enumerate(kv_caches)])
        chunks = [Chunk([seed], None, one, True) for seed, one in enumerate(kv_caches)]
        return [*first, *runner.step([*chunks[:2], Chunk(ids_of(7, 21), None, kv_caches[2], True)])]

    model = model_of()
    get_kernel(layout == "8-bit").result()
    here = logits()
    compile_in_subprocess(layout == "8-bit", tmp_path / "other.o", OTHERS[name])
    there: Future[Any] = Future()
    there.set_result(load(tmp_path / "other.o"))
    model = model_of()
    monkeypatch.setattr("chat_app.kernels.packed_weights.get_kernel", lambda eight_bits: there)
    monkeypatch.setattr("chat_app.kernels.packed_weights.target_processor", lambda: OTHERS[name])
    for one, other in zip(here, logits(), strict=True):
        assert (one - other).norm() <= 5e-3 * one.norm()  # Rounding of keys and values, and of prompts.


@pytest.mark.parametrize("layout", ["packed", "8-bit"])
def test_prefill_and_decode_share_a_step(layout, monkeypatch):
    for limit in ("MAX_TOKENS", "MAX_TOKENS_WITH_AMX"):
        monkeypatch.setattr(f"chat_app.inference.gpt2.compiled_decoder.{limit}", 60)
    get_kernel(layout == "8-bit").result()
    model = model_of()
    prompts = [ids_of(seed, 30 + 7 * seed) for seed in range(4)]
    expected_logits = [logits_of(model, ids, None) for ids in prompts]
    runner = GPT2ModelRunner(model if layout == "8-bit" else model.to(torch.bfloat16), 128, layout)
    kv_caches = [runner.new_kv_cache() for _ in prompts]
    runner.step([Chunk(prompts[0][:-1], None, kv_caches[0], False)])
    runner.step([Chunk(prompts[2][:9], None, kv_caches[2], False)])
    chunks = [
        Chunk(prompts[1], None, kv_caches[1], True),
        Chunk(prompts[0][-1:], None, kv_caches[0], True),
        Chunk(prompts[2][9:20], None, kv_caches[2], False),  # Read in part only.
        Chunk(prompts[3], None, kv_caches[3], True),
    ]
    assert runner._decoder.select(chunks) == [chunks[1], chunks[0], chunks[2]]  # The last does not fit.
    logits = runner.step(chunks)
    assert len(logits) == 3
    assert [kv_cache.length for kv_cache in kv_caches] == [30, 37, 20, 51]
    rest = runner.step([Chunk(prompts[2][20:], None, kv_caches[2], True), Chunk([5], None, kv_caches[0], False)])
    for row, index in ((logits[0], 1), (logits[1], 0), (logits[2], 3), (rest[0], 2)):
        assert float((row - expected_logits[index]).norm() / expected_logits[index].norm()) < 0.03


@pytest.mark.parametrize("layout", ["packed", "8-bit"])
def test_chunked_prefill_equals_token_by_token(layout):
    """Each token by itself, some together, and tiles that are full and not.

    A piece that the compiled step takes gives the very same bits. How many rows that may be depends on the processor;
    longer pieces go through torch, which adds up in another order and rounds otherwise: those are near.
    """
    get_kernel(layout == "8-bit").result()
    runner = GPT2ModelRunner(model_of(n_embd=128, n_head=2, n_positions=512), 512, layout)
    ids = ids_of(4, 280)
    most = min(max_kernel_rows(), MAX_TOKENS)

    def after(*lengths: int, taken: bool = True) -> torch.Tensor:
        kv_cache = runner.new_kv_cache()
        for length in lengths:
            chunk = Chunk(ids[kv_cache.length : length], None, kv_cache, length == len(ids))
            assert runner._decoder.select([chunk]) == ([chunk] if taken else [])
            logits = runner.step([chunk])
        return logits[0]

    expected_logits = after(*range(1, 281))
    for lengths in ((most, 2 * most, 280), (64, 128, 141, 220, 280), (90, 158, 219, 280), (63, 150, 240, 279, 280)):
        assert torch.equal(after(*lengths), expected_logits)
    near = after(280, taken=False)
    assert float((near - expected_logits).norm() / expected_logits.norm()) < 0.03


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_the_compiled_step_knows_the_activations(activation):
    get_kernel(True).result()
    model = model_of(activation_function=activation)
    assert can_pack(model.config.to_dict())
    ids = ids_of(3, 12)
    expected_logits = logits_of(model, ids, None)
    runner = GPT2ModelRunner(model, 128, "8-bit")
    kv_cache = runner.new_kv_cache()
    for one in ids:
        logits = runner.step([Chunk([one], None, kv_cache, True)])
    assert float((logits[0] - expected_logits).norm() / expected_logits.norm()) < 0.03


def test_what_the_compiled_step_does_not_know_stays_as_it_is():
    assert not can_pack({"activation_function": "gelu"})
    assert not can_pack({"n_embd": 63})
    assert can_pack({})


def test_chunks_of_a_batch_do_not_influence_each_other():
    model = model_of()
    runner = make_model_runner(model, 128)
    sequences = [(ids_of(seed, 10 + 5 * seed), [seed] * (10 + 5 * seed) if seed % 2 else None) for seed in range(5)]
    kv_caches = [runner.new_kv_cache() for _ in sequences]
    for (ids, types), kv_cache in zip(sequences[:3], kv_caches, strict=False):
        runner.step([Chunk(ids[:-1], types and types[:-1], kv_cache, False)])
    chunks = []
    for (ids, types), kv_cache in zip(sequences, kv_caches, strict=True):
        begun = kv_cache.length
        chunks.append(Chunk(ids[begun:], types and types[begun:], kv_cache, True))
    chunks[1:1] = [Chunk(ids_of(9, 7), None, runner.new_kv_cache(), False)]
    logits = runner.step(chunks)
    assert len(logits) == 5
    for row, (ids, types) in zip(logits, sequences, strict=True):
        torch.testing.assert_close(row, logits_of(model, ids, types), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["packed", "8-bit"])
def test_logits_are_the_same_alone_and_in_a_batch(layout):
    get_kernel(layout == "8-bit").result()
    runner = GPT2ModelRunner(model_of(), 128, layout)
    prompts = [ids_of(seed, 20 + seed) for seed in range(6)]

    def after(chosen: list[list[int]]) -> torch.Tensor:
        kv_caches = [runner.new_kv_cache() for _ in chosen]
        for ids, kv_cache in zip(chosen, kv_caches, strict=True):
            runner.step([Chunk(ids[:-1], None, kv_cache, False)])
        return runner.step(
            [Chunk(ids[-1:], None, kv_cache, True) for ids, kv_cache in zip(chosen, kv_caches, strict=True)]
        )

    together = after(prompts)
    for at, ids in enumerate(prompts):
        assert torch.equal(after([ids])[0], together[at])


def test_moving_the_weights_frees_those_of_the_model():
    model = model_of()
    size = tensor_bytes(model)
    runner = GPT2ModelRunner(model, 128, "8-bit")
    assert tensor_bytes(model) < 0.5 * size
    assert runner.memory_bytes < 0.5 * size
    assert model.get_input_embeddings().weight.shape == (300, 64)


@pytest.mark.parametrize("layout", ["packed", "8-bit"])
def test_a_packed_matrix_is_freed_at_once(layout, monkeypatch):
    get_kernel(layout == "8-bit").result()
    model = model_of()
    products = [layer.mlp.c_fc.weight for layer in model.transformer.h]
    held = [StorageWeakRef(one.untyped_storage()) for one in products]
    gone: list[bool] = []
    pack = PackedWeights.pack

    def watched(self: PackedWeights, number: int, *numbers: Any) -> None:
        if number == 4:  # The first of the second layer: that of the layer before has moved.
            gone.append(held[0].expired())
        pack(self, number, *numbers)

    monkeypatch.setattr(PackedWeights, "pack", watched)
    GPT2ModelRunner(model, 128, layout)
    assert gone == [True]


def test_shared_weights_stay_the_models(tiny_model):
    runner = GPT2ModelRunner(tiny_model, 128)
    assert runner.memory_bytes == tensor_bytes(tiny_model)
    assert all(parameter.requires_grad for parameter in tiny_model.parameters())


def test_damaged_weights_are_a_sentence():
    model = model_of()
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[3, 3] = torch.nan
    with pytest.raises(ModelError, match="damaged"):
        GPT2ModelRunner(model, 128, "8-bit")


def test_what_is_no_plain_gpt2_runs_through_transformers():
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3, eos_token_id=0, bos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    assert not is_plain_gpt2(model)
    assert isinstance(make_model_runner(model, 128), TransformersModelRunner)
    ids = ids_of(1, 30)
    engine = Engine(model, 128)
    assert generate_tokens(model, request(ids), 128) == list(engine.stream(request(ids))) == expected(model, ids)
    edited = [*ids[:20], *ids_of(2, 5)]
    assert list(engine.stream(request(edited))) == expected(model, edited)
    engine.close()
