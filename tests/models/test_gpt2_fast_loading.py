"""GPT-2's files read directly: bit by bit what transformers reads from them, or nothing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.errors import ModelError
from chat_app.inference.gpt2.model_runner import GPT2ModelRunner
from chat_app.inference.loaded_model import load
from chat_app.inference.model_runner import Chunk
from chat_app.models import loading
from chat_app.models.gpt2_fast_loading import read_tokenizer, read_weights
from chat_app.models.loading import load_parts
from chat_app.models.resolver import check_weights, inspect
from chat_app.models.tokenizer import load_tokenizer
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder
from tests.conftest import build_model

pytestmark = pytest.mark.dependencies

FLOAT = LoadConfig(precision="float32", device="cpu")
Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def config_of(**changes: Any) -> GPT2Config:
    return GPT2Config(vocab_size=90, n_embd=64, n_layer=2, n_head=1, n_positions=32, **changes)


def saved(folder: Path, change: Change | None = None, number: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A folder with a GPT-2 whose tensors were changed in the file."""
    torch.manual_seed(1)
    GPT2LMHeadModel(config_of(**changes)).to(number).save_pretrained(folder)
    if change is not None:
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


def read(folder: Path, number: torch.dtype = torch.float32, keep: bool = True) -> Any:
    return read_weights(check_weights(inspect("it", folder, "folder")), folder, number, "cpu", keep=keep)


def without_prefix(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As the first GPT-2s were saved: without the prefix and with the masks."""
    old = {name.removeprefix("transformer."): one for name, one in tensors.items()}
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 32, 32).tril() for layer in range(2)}
    return {**old, **masks, "h.0.attn.masked_bias": torch.tensor(-1e4)}


def with_head(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**tensors, "lm_head.weight": tensors["transformer.wte.weight"].clone()}


def with_another_head(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**tensors, "lm_head.weight": tensors["transformer.wte.weight"] + 1}


class TestWeights:
    @pytest.mark.parametrize("number", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize(
        ("stored", "change", "changes"),
        [
            (torch.float32, None, {}),
            (torch.bfloat16, None, {}),
            (torch.float16, None, {"activation_function": "relu", "scale_attn_by_inverse_layer_idx": True}),
            (torch.float32, without_prefix, {}),
            (torch.float32, with_head, {}),
            (torch.float32, with_another_head, {}),
            (torch.float32, None, {"tie_word_embeddings": False}),
            (torch.float32, None, {"n_inner": 100, "architectures": None, "do_sample": True, "dtype": "bfloat16"}),
        ],
        ids=["plain", "bfloat16", "float16", "old", "head", "another head", "untied", "other settings"],
    )
    def test_they_are_what_transformers_reads(
        self,
        tmp_path: Path,
        number: torch.dtype,
        stored: torch.dtype,
        change: Change | None,
        changes: dict[str, Any],
    ) -> None:
        folder = saved(tmp_path / "model", change, stored, **changes)
        found = read(folder, number).eval()
        wanted = AutoModelForCausalLM.from_pretrained(folder, dtype=number)
        theirs, ours = wanted.state_dict(), found.state_dict()
        assert list(theirs) == list(ours)
        assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
        assert {one.dtype for one in ours.values()} == {number}
        assert [name for name, _ in wanted.named_parameters()] == [name for name, _ in found.named_parameters()]
        assert all(one.requires_grad for one in found.parameters())
        assert found.config.to_dict() == wanted.config.to_dict()
        assert found.config.name_or_path == found.name_or_path == wanted.name_or_path
        assert found.generation_config.to_dict() == wanted.generation_config.to_dict()
        ids = torch.tensor([[3, 1, 4, 1, 5]])
        with torch.inference_mode():
            assert torch.equal(found(ids).logits, wanted(ids).logits)

    @pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("precision", ["8-bit", "bfloat16"])
    def test_what_will_be_moved_makes_the_same_scores(
        self, tmp_path: Path, stored: torch.dtype, precision: Literal["8-bit", "bfloat16"]
    ) -> None:
        folder = saved(tmp_path / "model", None, stored)
        number = torch.float32 if precision == "8-bit" else torch.bfloat16
        wanted = AutoModelForCausalLM.from_pretrained(folder, dtype=number)
        rows = []
        for model in (read(folder, number, keep=False), wanted):
            runner = GPT2ModelRunner(model, 32, "8-bit" if precision == "8-bit" else "packed")
            rows.append(runner.step([Chunk([3, 1, 4, 1, 5], None, runner.new_kv_cache(), True)])[0])
        assert torch.equal(*rows)

    @pytest.mark.parametrize("content", [None, "{", '{"temperature": 0.5, "eos_token_id": [1, 2]}'])
    def test_the_settings_for_writing(self, tmp_path: Path, content: str | None) -> None:
        folder = saved(tmp_path / "model")
        (folder / "generation_config.json").unlink()
        if content is not None:
            (folder / "generation_config.json").write_text(content)
        wanted = AutoModelForCausalLM.from_pretrained(folder)
        assert read(folder).generation_config.to_dict() == wanted.generation_config.to_dict()

    def test_shards(self, tmp_path: Path) -> None:
        model = build_model(90)
        model.save_pretrained(tmp_path, max_shard_size="20KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
        found = read(tmp_path).state_dict()
        assert all(torch.equal(one, found[name]) for name, one in model.state_dict().items())

    @pytest.mark.parametrize(
        "change",
        [
            lambda tensors: {**tensors, "extra": torch.zeros(2)},
            lambda tensors: {name: one for name, one in tensors.items() if not name.endswith("ln_f.bias")},
            lambda tensors: {**tensors, "transformer.ln_f.bias": torch.zeros(65)},
            lambda tensors: {**tensors, "transformer.ln_f.bias": torch.zeros(64, dtype=torch.float64)},
            lambda tensors: {**tensors, "ln_f.bias": torch.zeros(64)},
        ],
        ids=["extra", "missing", "misshapen", "float64", "twice"],
    )
    def test_what_is_unusual_is_left_to_transformers(self, tmp_path: Path, change: Change) -> None:
        folder = saved(tmp_path / "model")
        empty = check_weights(inspect("it", folder, "folder"))
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})
        assert read_weights(empty, folder, torch.float32, "cpu", keep=True) is None

    def test_another_kind_of_model_is_left_to_transformers(self) -> None:
        assert read_weights(torch.nn.Linear(2, 2), Path(), torch.float32, "cpu", keep=True) is None

    def test_learning_leaves_the_file_alone(self, tmp_path: Path) -> None:
        folder = saved(tmp_path / "model")
        file = folder / "model.safetensors"
        before = file.read_bytes()
        model = read(folder)
        ids = torch.tensor([[3, 1, 4, 1, 5]])
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        assert not torch.equal(model.transformer.wte.weight, load_file(file)["transformer.wte.weight"])
        assert file.read_bytes() == before

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere no file tells what is mapped")
    @pytest.mark.parametrize("number", ["float32", "bfloat16", "automatic", "8-bit"])
    def test_nothing_of_a_loaded_model_is_in_its_file(self, tmp_path: Path, tiny_tokenizer: Any, number: str) -> None:
        """Such a model would end with the process as soon as somebody wrote a shorter file over it."""
        folder = tmp_path / "model"
        Encoder(tiny_tokenizer, get_format("roles"), 32)
        build_model(len(tiny_tokenizer), 128).to(torch.bfloat16).save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        loaded = load(str(folder), LoadConfig(precision=number, device="cpu"), Paths(tmp_path / "home"))
        assert number in ("automatic", loaded.precision)
        assert str(folder) not in Path("/proc/self/maps").read_text()
        loaded.engine.close()

    @pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("number", [torch.float32, torch.bfloat16])
    def test_on_every_device_all_numbers_are_of_the_precision_asked_for(
        self, tmp_path: Path, monkeypatch: Any, make_folder: Any, stored: torch.dtype, number: torch.dtype
    ) -> None:
        folder = make_folder()
        GPT2LMHeadModel.from_pretrained(folder).to(stored).save_pretrained(folder)
        monkeypatch.setattr(loading, "choose_device", lambda device: "meta")  # It stands in for a GPU.
        monkeypatch.setattr(loading, "_from_pretrained", None)
        config = LoadConfig(precision=str(number).removeprefix("torch."))
        model, *_ = load_parts(str(folder), config, Paths(tmp_path / "home"))
        assert {(one.dtype, one.device.type) for one in model.parameters()} == {(number, "meta")}

    @pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("precision", ["automatic", "bfloat16"])
    @pytest.mark.parametrize("changes", [{"add_cross_attention": True}, {"n_layer": 0}])
    def test_a_gpt2_that_is_never_in_tiles_is_of_one_precision(
        self, tmp_path: Path, tiny_tokenizer: Any, stored: torch.dtype, precision: str, changes: dict[str, Any]
    ) -> None:
        folder = tmp_path / "model"
        Encoder(tiny_tokenizer, get_format("roles"), 32)
        size = {"vocab_size": len(tiny_tokenizer), "n_embd": 64, "n_layer": 1, "n_head": 1, "n_positions": 32}
        GPT2LMHeadModel(GPT2Config(**size | changes)).to(stored).save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        loaded = load(str(folder), LoadConfig(precision=precision, device="cpu"), Paths(tmp_path / "home"))
        assert {str(one.dtype) for one in loaded.model.parameters()} == {f"torch.{loaded.precision}"}
        loaded.engine.close()

    def test_a_usual_model_takes_no_other_way(self, tmp_path: Path, monkeypatch: Any, make_folder: Any) -> None:
        monkeypatch.setattr(loading, "_from_pretrained", None)
        model, *_ = load_parts(str(make_folder()), FLOAT, Paths(tmp_path / "home"))
        assert not model.training


def gpt2_words(folder: Path, **settings: Any) -> Path:
    """A folder of a GPT-2 with a small tokenizer of its kind, two marks and a template."""
    alphabet = sorted(GPT2Tokenizer().backend_tokenizer.pre_tokenizer.alphabet())
    vocabulary = {one: number for number, one in enumerate([*alphabet, "he", "Ġhe", "<|endoftext|>"])}
    merges = [("h", "e"), ("Ġ", "he")]
    tokenizer = GPT2Tokenizer(vocab=vocabulary, merges=merges, **settings)
    Encoder(tokenizer, get_format("roles"), 64)
    tokenizer.add_tokens(["<note>"])
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(folder)
    config_of().save_pretrained(folder)
    return folder


def change_words(folder: Path, name: str = "tokenizer.json", **changes: Any) -> None:
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(content.get(key), dict) else value
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


class TestTokenizer:
    @pytest.mark.parametrize("settings", [{}, {"add_prefix_space": True}, {"pad_token": "<pad>", "bos_token": "<s>"}])
    @pytest.mark.parametrize("has_settings", [True, False])
    def test_it_is_what_transformers_reads(self, tmp_path: Path, settings: dict[str, Any], has_settings: bool) -> None:
        folder = gpt2_words(tmp_path / "words", **settings)
        if not has_settings:
            (folder / "tokenizer_config.json").unlink()
        found, wanted = read_tokenizer(folder), AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if has_settings or "add_prefix_space" not in settings:
            assert type(found) is type(wanted) is GPT2Tokenizer
            assert found.backend_tokenizer.to_str() == wanted.backend_tokenizer.to_str()
            assert found.special_tokens_map == wanted.special_tokens_map
            assert found.chat_template == wanted.chat_template
            for name, one in (("ours", found), ("theirs", wanted)):
                one.save_pretrained(tmp_path / name)
            files = sorted((tmp_path / "theirs").iterdir())
            assert [one.name for one in sorted((tmp_path / "ours").iterdir())] == [one.name for one in files]
            assert all((tmp_path / "ours" / one.name).read_bytes() == one.read_bytes() for one in files)
        else:  # The settings say otherwise than the tokenizer.
            assert found is None

    @pytest.mark.parametrize(
        "change",
        [
            {"normalizer": {"type": "Lowercase"}},
            {"pre_tokenizer": {"use_regex": False}},
            {"decoder": {"type": "Fuse"}},
            {"model": {"dropout": 0.5}},
            {"model": {"ignore_merges": True}},
            {"model": {"end_of_word_suffix": "@"}},
        ],
    )
    def test_what_is_unusual_is_left_to_transformers(self, tmp_path: Path, change: dict[str, Any]) -> None:
        folder = gpt2_words(tmp_path / "words")
        change_words(folder, **change)
        assert read_tokenizer(folder) is None

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("config.json", {"model_type": "llama"}),
            ("config.json", {"tokenizer_class": "BertTokenizer"}),
            ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ],
    )
    def test_another_kind_is_left_to_transformers(self, tmp_path: Path, name: str, change: dict[str, Any]) -> None:
        folder = gpt2_words(tmp_path / "words")
        change_words(folder, name, **change)
        assert read_tokenizer(folder) is None

    def test_what_its_library_cannot_read_is_left_to_transformers(self, tmp_path: Path) -> None:
        folder = gpt2_words(tmp_path / "words")
        change_words(folder, model={"continuing_subword_prefix": "##"})  # Which its merges do not have.
        wanted = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        assert load_tokenizer(folder).backend_tokenizer.to_str() == wanted.backend_tokenizer.to_str()
        change_words(folder, "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
        with pytest.raises(ModelError, match="cannot be loaded"):
            load_tokenizer(folder)

    def test_a_folder_without_one(self, tmp_path: Path) -> None:
        folder = gpt2_words(tmp_path / "words")
        shutil.copy(folder / "config.json", tmp_path)
        assert read_tokenizer(tmp_path) is None
