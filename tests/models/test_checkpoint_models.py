"""A checkpoint of a run as a model of its own: RUN@STEP."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.errors import ModelError, ModelNotFoundError
from chat_app.models.loading import load_parts
from chat_app.models.resolver import find
from chat_app.runs.run import Run, split_name
from chat_app.training.pipeline import train_run

FLOAT = LoadConfig(precision="float32", device="cpu")


@pytest.mark.parametrize(
    ("name", "parts"),
    [("a@12", ("a", 12)), ("a", ("a", None)), ("a@", ("a@", None)), ("../a@1", ("../a@1", None)),
     ("a@1@2", ("a@1@2", None)), ("a@-1", ("a@-1", None)), ("a@٣", ("a@٣", None)), ("@1", ("@1", None))],
)  # fmt: skip
def test_a_name_with_a_step(name: str, parts: tuple[str, int | None]) -> None:
    assert split_name(name) == parts


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_checkpoint_is_loaded_with_the_words_of_its_run(
    prepare: Callable[..., Run], paths: Paths, method: str
) -> None:
    run = prepare("run", method=method, evaluate_every=4, max_steps=8, rehearse="off")
    train_run(run, paths)
    assert run.checkpoint_steps() == [4, 8]
    numbers = {}
    for step in (4, 8):
        model, tokenizer, files, detected_format = load_parts(f"run@{step}", FLOAT, paths)
        assert detected_format.format == "roles"
        assert detected_format.certain
        assert len(tokenizer) <= model.get_input_embeddings().weight.shape[0]
        assert files.name == f"run@{step}"
        numbers[step] = model.transformer.h[0].attn.c_attn.weight.detach().clone()
    assert not torch.equal(numbers[4], numbers[8])
    best = min((line["valid_loss"], line["step"]) for line in run.metrics() if line.get("valid_loss") and line["step"])
    whole: Any = load_parts("run", FLOAT, paths)[0]
    torch.testing.assert_close(numbers[best[1]], whole.transformer.h[0].attn.c_attn.weight, atol=1e-6, rtol=1e-5)


def test_only_a_checkpoint_that_is_whole_is_a_model(prepare: Callable[..., Run], paths: Paths) -> None:
    run = prepare("run", evaluate_every=4, max_steps=8, rehearse="off")
    train_run(run, paths)
    with pytest.raises(ModelNotFoundError, match="kept: 4, 8"):
        find("run@5", paths)
    (run.checkpoints / "checkpoint-4" / "trainer_state.json").write_text("{}")
    with pytest.raises(ModelError, match="not whole"):
        find("run@4", paths)
    if os.name != "nt":
        (run.checkpoints / "checkpoint-9").symlink_to("/etc")
        with pytest.raises(ModelError, match="points to somewhere else"):
            find("run@9", paths)
