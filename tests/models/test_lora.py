"""Small additions to a model: learned, saved, put back, melted in; and adapters that cannot be trusted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation
from chat_app.errors import ModelError, ModelNotFoundError
from chat_app.inference.backend import reply
from chat_app.inference.loaded_model import load
from chat_app.models.loading import fit_embeddings, load_parts
from chat_app.models.lora import add_lora, save_adapter
from chat_app.models.lora_files import read_adapter
from chat_app.models.lora_merge import merge
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder

pytestmark = pytest.mark.dependencies

PLAIN = LoadConfig(precision="float32", device="cpu")
HELLO = Conversation.from_turns(["Hello, how are you?"])


def taught(base: Path, folder: Path, paths: Paths, seed: int = 0) -> tuple[Any, Encoder]:
    """A saved adapter whose numbers are all different from zero; its base gains the marks of the format."""
    model, tokenizer, files, _ = load_parts(str(base), PLAIN, paths)
    before = len(tokenizer)
    encoder = Encoder(tokenizer, get_format("roles"), files.window)
    fit_embeddings(model, tokenizer)
    wrapped = add_lora(model, TrainConfig(lora_rank=4), str(base), range(before, len(tokenizer)))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    save_adapter(folder, wrapped, encoder, "A card.")
    return wrapped, encoder


@pytest.fixture
def base(make_folder: Callable[..., Path]) -> Path:
    return make_folder("base", format_name="eos", note=False, width=64)


@pytest.fixture
def adapter(base: Path, tmp_path: Path, paths: Paths) -> Path:
    taught(base, tmp_path / "adapter", paths)
    return tmp_path / "adapter"


def logits(model: Any) -> torch.Tensor:
    rows = model.get_input_embeddings().weight.shape[0]
    with torch.inference_mode():
        return model(input_ids=torch.arange(rows - 12, rows)[None]).logits.float()


def test_a_saved_adapter_gives_the_same_logits(base: Path, tmp_path: Path, paths: Paths) -> None:
    wrapped, _ = taught(base, tmp_path / "adapter", paths)
    loaded = load(str(tmp_path / "adapter"), PLAIN, paths)
    assert loaded.detected_format.format == "roles"
    torch.testing.assert_close(logits(loaded.model), logits(wrapped.eval()), rtol=1e-4, atol=1e-4)
    assert loaded.model.get_output_embeddings().weight is loaded.model.get_input_embeddings().weight
    plain, *_ = load_parts(str(base), PLAIN, paths)
    assert not torch.allclose(logits(plain)[..., :100], logits(wrapped)[..., :100], atol=0.1)
    assert reply(loaded, HELLO, SamplingConfig(max_new_tokens=4, seed=1)).reply_tokens > 0
    loaded.engine.close()


def test_the_merged_model_gives_the_same_logits(base: Path, tmp_path: Path, paths: Paths) -> None:
    wrapped, encoder = taught(base, tmp_path / "adapter", paths)
    merge(tmp_path / "adapter", tmp_path / "merged", paths)
    assert "lm_head.weight" not in load_file(tmp_path / "merged" / "model.safetensors")
    whole = load(str(tmp_path / "merged"), PLAIN, paths)
    torch.testing.assert_close(logits(whole.model), logits(wrapped.eval()), rtol=1e-4, atol=1e-4)
    assert whole.detected_format.format == "roles"
    assert len(whole.tokenizer) == len(encoder.tokenizer)
    whole.engine.close()
    merge(tmp_path / "adapter", tmp_path / "half", paths, precision="bfloat16")
    assert load_file(tmp_path / "half" / "model.safetensors")["transformer.wte.weight"].dtype == torch.bfloat16


def test_files_of_old_are_merged(base: Path, tmp_path: Path, paths: Paths) -> None:
    """The published GPT-2 leaves out the name of the inner model, holds masks, and ties without saying so."""
    tensors = load_file(base / "model.safetensors")
    old = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 128, 128)
    save_file(old, base / "model.safetensors", metadata={"format": "pt"})
    wrapped, _ = taught(base, tmp_path / "adapter", paths)
    merge(tmp_path / "adapter", tmp_path / "merged", paths)
    whole, *_ = load_parts(str(tmp_path / "merged"), PLAIN, paths)
    torch.testing.assert_close(logits(whole), logits(wrapped.eval()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["8-bit", "4-bit"])
def test_an_adapter_on_quantized_weights(adapter: Path, base: Path, paths: Paths, precision: str) -> None:
    pytest.importorskip("bitsandbytes", reason="quantization needs bitsandbytes")
    config = LoadConfig(precision=precision, device="cpu")
    near, *_ = load_parts(str(adapter), config, paths)
    exact, *_ = load_parts(str(adapter), PLAIN, paths)
    assert torch.nn.functional.cosine_similarity(logits(near), logits(exact), dim=-1).mean() > 0.9
    loaded = load(str(adapter), config, paths)
    assert loaded.precision == precision
    assert reply(loaded, HELLO, SamplingConfig(max_new_tokens=4, seed=1)).reply_tokens > 0
    loaded.engine.close()


def test_gpt2_is_really_quantized(base: Path, paths: Paths) -> None:
    """GPT-2 has Conv1D instead of linear layers; left out, 8 bits would save nothing."""
    pytest.importorskip("bitsandbytes", reason="quantization needs bitsandbytes")
    model, *_ = load_parts(str(base), LoadConfig(precision="8-bit", device="cpu"), paths)
    kinds = {type(module).__name__ for name, module in model.named_modules() if name.split(".")[-1].startswith("c_")}
    assert kinds == {"Linear8bitLt"}
    assert model.transformer.h[0].mlp.c_fc.weight.dtype == torch.int8


def test_an_adapter_whose_model_is_gone_says_so(adapter: Path, base: Path, paths: Paths) -> None:
    shutil.rmtree(base)
    with pytest.raises(ModelNotFoundError, match="belongs to the model"):
        load(str(adapter), PLAIN, paths)


def test_an_adapter_for_another_model_says_so(
    adapter: Path, base: Path, make_folder: Callable[..., Path], paths: Paths, tmp_path: Path
) -> None:
    shutil.rmtree(base)
    make_folder("base", format_name="eos", note=False, width=32)
    with pytest.raises(ModelError, match="does not fit"):
        load(str(adapter), PLAIN, paths)
    with pytest.raises(ModelError, match="does not fit"):
        merge(adapter, tmp_path / "merged", paths)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING"),
        ({"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "megatron_config"),
        ({"use_dora": True}, "use_dora"),
        ({"r": 10**9}, "rank"),
        ({"r": 5}, "not what its settings say"),
        ({"lora_alpha": "1"}, "alpha"),
        ({"base_model_name_or_path": None}, "which model"),
        ({"trainable_token_indices": [1]}, "list of tokens"),
        ({"trainable_token_indices": {"wte": [-1, 0, 1, 2]}}, "list of tokens"),
        ({"target_modules": "(a+)+$"}, None),  # Never used: the names come from the weights.
    ],
)
def test_settings_of_an_adapter_are_judged(adapter: Path, changes: dict[str, Any], message: str | None) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    if message is None:
        assert len(read_adapter(adapter).modules) == 8
        return
    with pytest.raises(ModelError, match=message):
        read_adapter(adapter)


def test_weights_of_an_adapter_are_judged(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4])
    with pytest.raises(ModelError, match="damaged"):
        read_adapter(adapter)
    file.unlink()
    (adapter / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="pickle"):
        read_adapter(adapter)


def test_an_adapter_on_an_adapter_is_refused(adapter: Path, tmp_path: Path, paths: Paths) -> None:
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    file = other / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": str(adapter)}))
    with pytest.raises(ModelError, match="an adapter itself"):
        load(str(other), PLAIN, paths)
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": str(other)}))
    with pytest.raises(ModelError, match="an adapter itself"):
        load(str(other), PLAIN, paths)


def test_an_adapter_is_read_whole(adapter: Path, base: Path) -> None:
    files = read_adapter(adapter)
    assert (files.base, files.rank, files.scale) == (str(base), 4, 8.0)
    assert len(files.modules) == 8
    assert files.tokens == tuple(range(min(files.tokens), min(files.tokens) + 4))
    assert replace(files, base="x").weights == adapter / "adapter_model.safetensors"
