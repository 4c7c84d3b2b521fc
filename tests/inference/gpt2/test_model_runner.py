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
from chat_app.inference.engine import Engine, forward_of, generate_tokens
from chat_app.inference.gpt2.compiled_decoder import MAX_TOKENS
from chat_app.inference.gpt2.model_runner import GPT2Forward
from chat_app.inference.gpt2.weights import is_plain_gpt2
from chat_app.inference.model_runner import Piece, TransformersForward, tensor_bytes
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


def scores_of(model: Any, ids: list[int], types: list[int] | None) -> torch.Tensor:
    kinds = None if types is None else torch.tensor([types])
    with torch.no_grad():
        return model(torch.tensor([ids]), token_type_ids=kinds).logits[0, -1].float()


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_are_those_of_transformers(variant, typed):
    model = model_of(**VARIANTS[variant])
    forward = forward_of(model, 128)
    assert isinstance(forward, GPT2Forward)
    ids, types = ids_of(1, 40), [5] * 20 + [6] * 20 if typed else None
    memory = forward.new_memory()
    for start, end in ((0, 1), (1, 17), (17, 39), (39, 40)):  # Alone, in pieces, the last by itself.
        piece = Piece(ids[start:end], types and types[start:end], memory, end == 40)
        scores = forward.step([piece])
    assert memory.length == 40
    torch.testing.assert_close(scores[0], scores_of(model, ids, types), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernels", ["compiled", "being compiled", "off"])
@pytest.mark.parametrize(("layout", "most"), [("packed", 0.03), ("8-bit", 0.03)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_other_layouts_are_near(variant, layout, most, kernels, monkeypatch):
    if kernels == "compiled":
        get_kernel(layout == "8-bit").result()
    elif kernels == "off":
        monkeypatch.setenv("CHAT_APP_KERNELS", "off")
    else:
        monkeypatch.setattr("chat_app.kernels.packed_weights.get_kernel", lambda eight_bits: Future())
    model = model_of(**VARIANTS[variant])
    ids, types = ids_of(2, 50), [3] * 50
    expected_scores = scores_of(model, ids, types)
    moved = copy.deepcopy(model).to(torch.bfloat16) if layout == "packed" else copy.deepcopy(model)
    forward = GPT2Forward(moved, 128, layout)
    memory = forward.new_memory()
    forward.step([Piece(ids[:30], types[:30], memory, False)])
    forward.step([Piece(ids[30:40], types[30:40], memory, False)])
    for at in range(40, 50):
        scores = forward.step([Piece(ids[at : at + 1], types[at : at + 1], memory, True)])
    assert float((scores[0] - expected_scores).norm() / expected_scores.norm()) < most


@pytest.mark.long
@pytest.mark.skipif(platform.machine() != "x86_64", reason="it stands in for processors of this kind only")
@pytest.mark.parametrize("layout", ["packed", "8-bit"])
@pytest.mark.parametrize("name", sorted(OTHERS))
def test_the_step_for_other_processors_gives_the_same_scores(name, layout, tmp_path, monkeypatch):
    def scores() -> list[torch.Tensor]:
        forward = GPT2Forward(model.to(torch.bfloat16) if layout == "packed" else copy.deepcopy(model), 128, layout)
        memories = [forward.new_memory() for _ in range(3)]
        first = forward.step([Piece(ids_of(seed, 9 + seed), None, one, True) for seed, one in enumerate(memories)])
        pieces = [Piece([seed], None, one, True) for seed, one in enumerate(memories)]
        return [*first, *forward.step([*pieces[:2], Piece(ids_of(7, 21), None, memories[2], True)])]

    model = model_of()
    get_kernel(layout == "8-bit").result()
    here = scores()
    compile_in_subprocess(layout == "8-bit", tmp_path / "other.o", OTHERS[name])
    there: Future[Any] = Future()
    there.set_result(load(tmp_path / "other.o"))
    model = model_of()
    monkeypatch.setattr("chat_app.kernels.packed_weights.get_kernel", lambda eight_bits: there)
    monkeypatch.setattr("chat_app.kernels.packed_weights.this_processor", lambda: OTHERS[name])
    for one, other in zip(here, scores(), strict=True):
        assert (one - other).norm() <= 5e-3 * one.norm()  # Rounding of keys and values, and of prompts.


@pytest.mark.parametrize("layout", ["packed", "8-bit"])
def test_prompts_beside_replies_are_read_in_the_same_step(layout, monkeypatch):
    for limit in ("MAX_TOKENS", "MAX_TOKENS_WITH_AMX"):
        monkeypatch.setattr(f"chat_app.inference.gpt2.compiled_decoder.{limit}", 60)
    get_kernel(layout == "8-bit").result()
    model = model_of()
    prompts = [ids_of(seed, 30 + 7 * seed) for seed in range(4)]
    expected_scores = [scores_of(model, ids, None) for ids in prompts]
    forward = GPT2Forward(model if layout == "8-bit" else model.to(torch.bfloat16), 128, layout)
    memories = [forward.new_memory() for _ in prompts]
    forward.step([Piece(prompts[0][:-1], None, memories[0], False)])
    forward.step([Piece(prompts[2][:9], None, memories[2], False)])
    pieces = [
        Piece(prompts[1], None, memories[1], True),
        Piece(prompts[0][-1:], None, memories[0], True),
        Piece(prompts[2][9:20], None, memories[2], False),  # Read in part only.
        Piece(prompts[3], None, memories[3], True),
    ]
    assert forward._writer.takes(pieces) == [pieces[1], pieces[0], pieces[2]]  # The last does not fit.
    scores = forward.step(pieces)
    assert len(scores) == 3
    assert [memory.length for memory in memories] == [30, 37, 20, 51]
    rest = forward.step([Piece(prompts[2][20:], None, memories[2], True), Piece([5], None, memories[0], False)])
    for row, index in ((scores[0], 1), (scores[1], 0), (scores[2], 3), (rest[0], 2)):
        assert float((row - expected_scores[index]).norm() / expected_scores[index].norm()) < 0.03


@pytest.mark.parametrize("layout", ["packed", "8-bit"])
def test_the_many_tokens_of_a_prompt_see_what_one_by_one_they_see(layout):
    """Each token by itself, some together, and tiles that are full and not.

    A piece that the compiled step takes gives the very same bits. How many rows that may be depends on the processor;
    longer pieces go through torch, which adds up in another order and rounds otherwise: those are near.
    """
    get_kernel(layout == "8-bit").result()
    forward = GPT2Forward(model_of(n_embd=128, n_head=2, n_positions=512), 512, layout)
    ids = ids_of(4, 280)
    most = min(max_kernel_rows(), MAX_TOKENS)

    def after(*lengths: int, taken: bool = True) -> torch.Tensor:
        memory = forward.new_memory()
        for length in lengths:
            piece = Piece(ids[memory.length : length], None, memory, length == len(ids))
            assert forward._writer.takes([piece]) == ([piece] if taken else [])
            scores = forward.step([piece])
        return scores[0]

    expected_scores = after(*range(1, 281))
    for lengths in ((most, 2 * most, 280), (64, 128, 141, 220, 280), (90, 158, 219, 280), (63, 150, 240, 279, 280)):
        assert torch.equal(after(*lengths), expected_scores)
    near = after(280, taken=False)
    assert float((near - expected_scores).norm() / expected_scores.norm()) < 0.03


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_the_compiled_step_knows_the_activations(activation):
    get_kernel(True).result()
    model = model_of(activation_function=activation)
    assert can_pack(model.config.to_dict())
    ids = ids_of(3, 12)
    expected_scores = scores_of(model, ids, None)
    forward = GPT2Forward(model, 128, "8-bit")
    memory = forward.new_memory()
    for one in ids:
        scores = forward.step([Piece([one], None, memory, True)])
    assert float((scores[0] - expected_scores).norm() / expected_scores.norm()) < 0.03


def test_what_the_compiled_step_does_not_know_stays_as_it_is():
    assert not can_pack({"activation_function": "gelu"})
    assert not can_pack({"n_embd": 63})
    assert can_pack({})


def test_pieces_of_several_sequences_do_not_touch_each_other():
    model = model_of()
    forward = forward_of(model, 128)
    sequences = [(ids_of(seed, 10 + 5 * seed), [seed] * (10 + 5 * seed) if seed % 2 else None) for seed in range(5)]
    memories = [forward.new_memory() for _ in sequences]
    for (ids, types), memory in zip(sequences[:3], memories, strict=False):
        forward.step([Piece(ids[:-1], types and types[:-1], memory, False)])
    pieces = []
    for (ids, types), memory in zip(sequences, memories, strict=True):
        begun = memory.length
        pieces.append(Piece(ids[begun:], types and types[begun:], memory, True))
    pieces[1:1] = [Piece(ids_of(9, 7), None, forward.new_memory(), False)]
    scores = forward.step(pieces)
    assert len(scores) == 5
    for row, (ids, types) in zip(scores, sequences, strict=True):
        torch.testing.assert_close(row, scores_of(model, ids, types), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["packed", "8-bit"])
def test_scores_are_the_same_alone_and_together(layout):
    get_kernel(layout == "8-bit").result()
    forward = GPT2Forward(model_of(), 128, layout)
    prompts = [ids_of(seed, 20 + seed) for seed in range(6)]

    def after(chosen: list[list[int]]) -> torch.Tensor:
        memories = [forward.new_memory() for _ in chosen]
        for ids, memory in zip(chosen, memories, strict=True):
            forward.step([Piece(ids[:-1], None, memory, False)])
        return forward.step([Piece(ids[-1:], None, memory, True) for ids, memory in zip(chosen, memories, strict=True)])

    together = after(prompts)
    for at, ids in enumerate(prompts):
        assert torch.equal(after([ids])[0], together[at])


def test_moving_the_weights_frees_those_of_the_model():
    model = model_of()
    size = tensor_bytes(model)
    forward = GPT2Forward(model, 128, "8-bit")
    assert tensor_bytes(model) < 0.5 * size
    assert forward.memory_bytes < 0.5 * size
    assert model.get_input_embeddings().weight.shape == (300, 64)


@pytest.mark.parametrize("layout", ["packed", "8-bit"])
def test_a_matrix_that_has_moved_is_held_by_nobody(layout, monkeypatch):
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
    GPT2Forward(model, 128, layout)
    assert gone == [True]


def test_shared_weights_stay_the_models(tiny_model):
    forward = GPT2Forward(tiny_model, 128)
    assert forward.memory_bytes == tensor_bytes(tiny_model)
    assert all(parameter.requires_grad for parameter in tiny_model.parameters())


def test_damaged_weights_are_a_sentence():
    model = model_of()
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[3, 3] = torch.nan
    with pytest.raises(ModelError, match="damaged"):
        GPT2Forward(model, 128, "8-bit")


def test_what_is_no_plain_gpt2_runs_through_transformers():
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3, eos_token_id=0, bos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    assert not is_plain_gpt2(model)
    assert isinstance(forward_of(model, 128), TransformersForward)
    ids = ids_of(1, 30)
    engine = Engine(model, 128)
    assert generate_tokens(model, request(ids), 128) == list(engine.stream(request(ids))) == expected(model, ids)
    edited = [*ids[:20], *ids_of(2, 5)]
    assert list(engine.stream(request(edited))) == expected(model, edited)
    engine.close()
