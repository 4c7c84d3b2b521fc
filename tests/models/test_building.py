"""Models are built one at a time, so that what transformers changes meanwhile is as before afterwards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.models.building import building
from chat_app.models.loading import load_parts
from chat_app.models.meta_model import build_meta_model
from chat_app.training.pretraining import new_model

LONG = 180  # Seconds; only a fault lets a test wait so long.
BUILDERS = {
    "empty": (transformers.AutoModelForCausalLM, "from_config"),
    "loaded": (transformers.AutoModelForCausalLM, "from_pretrained"),
    "new": (transformers.GPT2LMHeadModel, "__init__"),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_model_waits_until_another_is_built(kind, make_folder, tiny_tokenizer, tmp_path, monkeypatch):
    owner, name = BUILDERS[kind]
    folder = make_folder(width=64)
    entered, really = threading.Event(), getattr(owner, name)

    def noted(*given: Any, **settings: Any) -> Any:
        entered.set()
        return really(*given, **settings)

    def build() -> Any:
        if kind == "empty":
            return build_meta_model({"model_type": "gpt2", "n_layer": 1, "n_embd": 32, "n_head": 2})
        if kind == "loaded":
            monkeypatch.setattr(
                "chat_app.models.loading.check_weights", lambda files: None
            )  # All of it by transformers.
            return load_parts(str(folder), LoadConfig(precision="float32", device="cpu"), Paths(tmp_path))
        return new_model(tiny_tokenizer, "nano")

    monkeypatch.setattr(owner, name, noted)
    with ThreadPoolExecutor(1) as pool:
        with building():
            built = pool.submit(build)
            assert not entered.wait(0.5)
        assert built.result(LONG)
        assert entered.is_set()


def test_models_of_two_types_leave_the_default_as_it_was(tmp_path, make_model):
    folders: list[Path] = []
    for kind in (torch.bfloat16, torch.float16):
        folders.append(tmp_path / str(kind))
        make_model(300, width=64).to(kind).save_pretrained(folders[-1])
    configs = [transformers.AutoConfig.from_pretrained(folder).to_dict() for folder in folders]
    before = torch.get_default_dtype()

    def build(number: int) -> torch.dtype:
        return next(build_meta_model(configs[number % 2]).parameters()).dtype

    with ThreadPoolExecutor(4) as pool:
        kinds = list(pool.map(build, range(40), timeout=LONG))
    assert kinds == [torch.bfloat16, torch.float16] * 20
    assert torch.get_default_dtype() == before
