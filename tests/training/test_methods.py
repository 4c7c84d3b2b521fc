"""The ways to learn: every weight or an addition, in 32, 8 or 4 bits, with and without recomputing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.errors import SettingError
from chat_app.models.loading import load_parts
from chat_app.models.lora_files import read_adapter
from chat_app.runs.run import Run
from chat_app.training.pipeline import train_run
from chat_app.training.prepare import write_run
from tests.conftest import CONFIG, reading_of
from tests.training.test_trainer import StopAfter, same, weights

PLAIN = LoadConfig(precision="float32", device="cpu")
LORA: dict[str, Any] = {"method": "lora", "learning_rate": 0.01, "lora_rank": 4, "lora_alpha": 8.0}


@pytest.fixture
def lora_run(paths: Paths, make_folder: Callable[..., Path]) -> Callable[..., Run]:
    """Makes runs that learn an addition to a model without marks: lora_run("a", epochs=3)."""
    model = make_folder("base", format_name="eos", note=False, width=64)

    def make(name: str, **changes: Any) -> Run:
        config = replace(CONFIG, **{"model": str(model), "format": "roles", **LORA, **changes})
        return write_run(config, reading_of(12), paths, folder=paths.runs / name)

    return make


def losses(run: Run) -> list[float]:
    return [line["valid_loss"] for line in run.metrics() if "valid_loss" in line]


@pytest.mark.dependencies
def test_an_addition_is_learned_and_merged(lora_run: Callable[..., Run], paths: Paths) -> None:
    run = lora_run("a", epochs=4)
    train_run(run, paths)
    assert losses(run)[-1] < 0.8 * losses(run)[0]
    adapter = read_adapter(run.adapter)
    assert len(adapter.tokens) == 4
    learned = load_file(adapter.weights)["base_model.model.transformer.wte.token_adapter.trainable_tokens_delta"]
    base, *_ = load_parts(adapter.base, PLAIN, paths)
    start = base.get_input_embeddings().weight.mean(0)
    assert ((learned - start).abs().amax(1) > 0.005).all()  # Each of the marks has moved.
    whole, tokenizer, _, detected_format = load_parts(run.id, PLAIN, paths)
    assert detected_format.format == "roles"
    torch.testing.assert_close(whole.get_input_embeddings().weight[-4:], learned)
    assert whole.get_input_embeddings().weight.shape[0] == len(tokenizer)
    same_again, *_ = load_parts(str(run.adapter), PLAIN, paths)
    ids = torch.arange(len(tokenizer) - 8, len(tokenizer))[None]
    with torch.inference_mode():
        torch.testing.assert_close(same_again(ids).logits, whole(ids).logits, rtol=1e-4, atol=1e-4)
    kept = {name: value for name, value in whole.state_dict().items() if "ln_" in name or "bias" in name}
    for name, value in kept.items():
        assert torch.equal(value, base.state_dict()[name])


@pytest.mark.parametrize("step", [3, 4])
def test_an_addition_resumes_exactly(lora_run: Callable[..., Run], paths: Paths, step: int) -> None:
    whole, stopped = lora_run("whole", lora_dropout=0.1), lora_run("stopped", lora_dropout=0.1)
    train_run(whole, paths)
    train_run(stopped, paths, callbacks=[StopAfter(stopped, step)])
    assert stopped.state().step == step
    checkpoint = stopped.newest_checkpoint()
    assert checkpoint is not None
    assert not (checkpoint / "model.safetensors").exists()
    train_run(stopped, paths)
    assert same(weights(whole), weights(stopped))
    assert same(
        load_file(whole.adapter / "adapter_model.safetensors"), load_file(stopped.adapter / "adapter_model.safetensors")
    )


@pytest.mark.parametrize(
    ("method", "precision"),
    [("lora-8bit", "bfloat16"), pytest.param("lora-4bit", "float32", marks=pytest.mark.dependencies)],
)
def test_an_addition_to_quantized_weights(
    lora_run: Callable[..., Run], paths: Paths, method: str, precision: str
) -> None:
    pytest.importorskip("bitsandbytes", reason="quantization needs bitsandbytes")
    run = lora_run("a", method=method, precision=precision, epochs=3)
    train_run(run, paths)
    assert losses(run)[-1] < 0.9 * losses(run)[0]
    base, *_ = load_parts(read_adapter(run.adapter).base, PLAIN, paths)
    whole, *_ = load_parts(run.id, PLAIN, paths)
    before, after = base.transformer.h[0].mlp.c_fc.weight, whole.transformer.h[0].mlp.c_fc.weight
    assert after.dtype == torch.float32
    assert torch.linalg.matrix_rank(after - before, rtol=1e-3) <= 4  # Nothing but the addition has changed.


def test_recomputing_gives_the_same_weights(prepare: Callable[..., Run], paths: Paths) -> None:
    plain, again = prepare("plain", gradient_checkpointing="off"), prepare("again", gradient_checkpointing="on")
    for run in (plain, again):
        train_run(run, paths)
    first, second = weights(plain), weights(again)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-3, atol=1e-4)


def test_recomputing_with_an_addition(lora_run: Callable[..., Run], paths: Paths) -> None:
    run = lora_run("a", method="lora-8bit", gradient_checkpointing="on", epochs=2)
    train_run(run, paths)
    assert losses(run)[-1] < 0.95 * losses(run)[0]


@pytest.mark.dependencies
def test_an_addition_goes_on_from_an_adapter(lora_run: Callable[..., Run], paths: Paths) -> None:
    first = lora_run("first", epochs=3)
    train_run(first, paths)
    second = lora_run("second", epochs=1, model=str(first.adapter))
    train_run(second, paths)
    assert losses(second)[0] == pytest.approx(losses(first)[-1], rel=1e-3)
    assert read_adapter(second.adapter).base == str(second.folder / "base")
    assert read_adapter(second.adapter).tokens == ()


def test_muon_is_not_for_additions(lora_run: Callable[..., Run], paths: Paths) -> None:
    with pytest.raises(SettingError, match="Muon"):
        train_run(lora_run("a", optimizer="muon"), paths)
