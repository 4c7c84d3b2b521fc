"""Models that are no plain GPT-2 run through transformers' own forward pass, with its KV cache."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from transformers import LlamaForCausalLM

from chat_app.config.training import TrainConfig
from chat_app.errors import ModelError
from chat_app.inference.model_runner import Chunk, TransformersModelRunner
from chat_app.models.lora import add_lora

pytestmark = pytest.mark.dependencies
SIZES = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3, "eos_token_id": 0,
    "bos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip


def model_of(kind: str, **changes: Any) -> Any:
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **changes})
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


class Renamed(LlamaForCausalLM):
    """A Llama whose forward calls its cache what transformers called it until 5.23."""

    def forward(self, input_ids: Any, past_key_values: Any = None, use_cache: bool = False) -> Any:
        name = "cache" if "cache" in inspect.signature(super().forward).parameters else "past_key_values"
        return super().forward(input_ids, use_cache=use_cache, **{name: past_key_values})


class NewName(LlamaForCausalLM):
    """A Llama whose forward calls its cache what transformers calls it from 5.24 on."""

    def forward(self, input_ids: Any, cache: Any = None, use_cache: bool = False) -> Any:
        name = "cache" if "cache" in inspect.signature(super().forward).parameters else "past_key_values"
        return super().forward(input_ids, use_cache=use_cache, **{name: cache})


def assert_chunks_equal_the_whole(model: Any) -> None:
    ids = torch.randint(300, (1, 24), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = model(input_ids=ids).logits[0]
    runner = TransformersModelRunner(model)
    kv_cache = runner.new_kv_cache()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # An argument that will go away soon.
        for start, end in [(0, 9), (9, 10), (10, 23), (23, 24)]:
            [logits] = runner.step([Chunk(ids[0, start:end].tolist(), None, kv_cache, True)])
            torch.testing.assert_close(logits, wanted[end - 1], atol=1e-4, rtol=1e-4)
    assert kv_cache.length == 24


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("llama", {}), ("mistral", {"sliding_window": 8}), ("qwen3", {"head_dim": 8}), ("gpt_neox", {})],
)
def test_other_kinds_of_models_read_their_cache(kind: str, changes: dict[str, Any]) -> None:
    assert_chunks_equal_the_whole(model_of(kind, **changes))


def test_a_model_with_lora_layers_reads_its_cache(make_model: Callable[..., Any]) -> None:
    wrapped = add_lora(make_model(vocabulary=300), TrainConfig(lora_rank=4), "base", range(296, 300)).eval()
    assert_chunks_equal_the_whole(wrapped.get_base_model())


@pytest.mark.parametrize("kind", [Renamed, NewName])
def test_the_cache_has_either_name(kind: type[LlamaForCausalLM]) -> None:
    torch.manual_seed(0)
    assert_chunks_equal_the_whole(kind(transformers.LlamaConfig(**SIZES)).eval())


def test_a_model_without_a_cache_is_refused() -> None:
    config = transformers.OpenAIGPTConfig(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    with pytest.raises(ModelError, match="keeps no key/value cache"):
        TransformersModelRunner(transformers.OpenAIGPTLMHeadModel(config))


def test_a_model_that_only_keeps_states_is_refused() -> None:
    with pytest.raises(ModelError, match="keeps no key/value cache"):
        TransformersModelRunner(model_of("mamba"))


def test_a_model_with_states_beside_a_cache_reads_both() -> None:
    model = model_of("lfm2", layer_types=["conv", "full_attention"])
    assert_chunks_equal_the_whole(model)
    assert not TransformersModelRunner(model).new_kv_cache().can_truncate


def test_a_cache_is_truncated_and_copied() -> None:
    model = model_of("llama")
    ids = torch.randint(300, (20,), generator=torch.Generator().manual_seed(2)).tolist()
    runner = TransformersModelRunner(model)
    kv_cache = runner.new_kv_cache()
    runner.step([Chunk(ids, None, kv_cache, True)])
    assert kv_cache.can_truncate
    other = kv_cache.copy(12)
    kv_cache.truncate(15)
    with torch.inference_mode():
        for one, known in ((other, ids[:12]), (kv_cache, ids[:15])):
            [logits] = runner.step([Chunk([7, 8], None, one, True)])
            wanted = model(input_ids=torch.tensor([[*known, 7, 8]])).logits[0, -1]
            torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)
