"""The precision "automatic": 8-bit weights where they lose next to nothing, which is measured; and "exact"."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.inference import precision as precision_module
from chat_app.inference.gpt2.eight_bit_loss import MAX_TOKENS, measure_perplexity_rise
from chat_app.inference.loaded_model import LoadedModel, load
from chat_app.inference.precision import MAX_RISE
from chat_app.kernels.packed_weights import quantize_per_channel
from chat_app.models.resolver import estimate_memory, find
from chat_app.models.weight_digest import digest_weights
from chat_app.system import memory
from chat_app.tokenization.encoder import Example

AUTOMATIC, EXACT = LoadConfig(device="cpu"), LoadConfig(device="cpu", precision="exact")
WINDOW = 128


@pytest.fixture
def load_closed(tmp_path: Path) -> Callable[..., LoadedModel]:
    """Loads a model and closes its engine."""

    def load_and_close(folder: Path, config: LoadConfig = AUTOMATIC) -> LoadedModel:
        loaded = load(str(folder), config, Paths(tmp_path / "home"))
        loaded.close()
        return loaded

    return load_and_close


def coarsen(folder: Path) -> None:
    """Give every output one weight so large that the steps of 8 bits are too wide for all others, without effect on the
    exact model: the input that it belongs to is always 0."""
    model = GPT2LMHeadModel.from_pretrained(folder)
    with torch.no_grad():
        for block in model.transformer.h:
            for norm, linear in ((block.ln_1, block.attn.c_attn), (block.ln_2, block.mlp.c_fc)):
                norm.weight[0] = norm.bias[0] = 0
                linear.weight[0] = 300
    model.save_pretrained(folder)


@pytest.fixture
def unsure_folder(make_folder: Callable[..., Path]) -> Path:
    """A model that holds all tokens for nearly equally likely, so that rounding its weights changes next to nothing."""
    folder: Path = make_folder(width=64)
    model = GPT2LMHeadModel.from_pretrained(folder)
    with torch.no_grad():
        model.transformer.wte.weight *= 0.1
    model.save_pretrained(folder)
    return folder


def rounded_copy(model: Any) -> Any:
    """The model with the weights that are left of it in 8 bits."""
    other = copy.deepcopy(model)
    head = model.lm_head.weight.detach().clone()
    other.lm_head.weight = torch.nn.Parameter(head)
    other.transformer.wte.weight = torch.nn.Parameter(head.bfloat16().float())
    with torch.no_grad():
        for block in other.transformer.h:
            for linear in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
                whole, scales = quantize_per_channel(linear.weight)
                linear.weight.copy_(whole * scales)
        whole, scales = quantize_per_channel(head.T)
        other.lm_head.weight.copy_((whole * scales).T)
    return other


def test_the_rise_is_that_of_the_divergence_of_both_models(make_model):
    model = make_model(200, width=64)
    rows = [
        Example(torch.randint(0, 200, (length,)).tolist(), types, [0] * length)
        for length, types in ((1, None), (40, None), (30, [7] * 15 + [9] * 15))
    ]
    total = 0.0
    with torch.inference_mode():
        for row in rows:
            inputs = {"input_ids": torch.tensor([row.ids])}
            if row.types is not None:
                inputs["token_type_ids"] = torch.tensor([row.types])
            one, other = (which(**inputs).logits[0].log_softmax(-1) for which in (model, rounded_copy(model)))
            total += float((one.exp() * (one - other)).sum())
    expected = math.expm1(total / 71)
    assert expected > 0
    assert measure_perplexity_rise(model, rows, WINDOW) == pytest.approx(expected, rel=1e-2)


def test_a_long_text_is_cut_and_none_gives_no_number(make_model):
    model = make_model(50, width=64)
    many = [Example([1 + at % 40 for at in range(WINDOW)], None, [0] * WINDOW)] * 5
    assert measure_perplexity_rise(model, many, WINDOW) == measure_perplexity_rise(
        model, many[: MAX_TOKENS // WINDOW], WINDOW
    )
    assert math.isnan(measure_perplexity_rise(model, [], WINDOW))


def test_automatic_is_8_bits_where_they_lose_next_to_nothing(load_closed, unsure_folder):
    loaded = load_closed(unsure_folder)
    assert loaded.precision == "8-bit"
    assert loaded.description.precision_reason.startswith("8-bit weights: measured, the loss is 0.0")


def test_automatic_is_bfloat16_where_8_bits_lose_too_much(load_closed, make_folder):
    folder = make_folder(width=64)
    coarsen(folder)
    for _ in range(2):
        loaded = load_closed(folder)
        assert loaded.precision == "bfloat16"
        assert loaded.precision_reason.startswith("bfloat16 weights: measured, 8-bit ones would lose ")


def test_the_same_weights_are_measured_once(load_closed, unsure_folder, tmp_path, monkeypatch):
    folder = unsure_folder
    first = load_closed(folder)
    (kept,) = (tmp_path / "home" / "cache" / "precision").iterdir()
    assert 0 <= json.loads(kept.read_text())["rise"] <= MAX_RISE
    monkeypatch.setattr(precision_module, "measure_perplexity_rise", None)
    assert load_closed(folder).precision_reason == first.precision_reason


@pytest.mark.parametrize("content", ["", "[]", '{"rise": "much"}', '{"rise": NaN}'])
def test_a_damaged_measurement_is_made_again(content, load_closed, make_folder, tmp_path):
    folder = make_folder(width=64)
    first = load_closed(folder)
    (kept,) = (tmp_path / "home" / "cache" / "precision").iterdir()
    before = kept.read_text()
    kept.write_text(content)
    assert load_closed(folder).precision_reason == first.precision_reason
    assert kept.read_text() == before


def test_other_weights_have_another_digest(make_folder):
    folder = make_folder(width=64)
    file, before = folder / "model.safetensors", digest_weights(folder)
    assert digest_weights(make_folder("copy", width=64)) == before
    tensors = load_file(file)
    save_file({name: tensor * 1.001 for name, tensor in tensors.items()}, file, {"format": "pt"})
    assert digest_weights(folder) != before


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_exact_is_as_the_file_is(stored, load_closed, make_folder):
    folder = make_folder(width=64)
    GPT2LMHeadModel.from_pretrained(folder, dtype=getattr(torch, stored)).save_pretrained(folder)
    loaded = load_closed(folder, EXACT)
    assert loaded.precision == stored
    assert loaded.precision_reason == "exact, as in its file"


def test_without_room_to_measure_it_is_bfloat16(load_closed, make_folder, monkeypatch):
    folder = make_folder(width=64)
    needed = {one: estimate_memory(find(str(folder), Paths(folder)), one) for one in ("automatic", "bfloat16")}
    assert needed["bfloat16"] < needed["automatic"]
    monkeypatch.setattr(memory, "measure_free_memory", lambda device: needed["automatic"] - 1)
    assert load_closed(folder).precision == "bfloat16"
