"""Importing PyTorch files: real child processes, real files as trainers write them."""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from chat_app.config.paths import Paths
from chat_app.errors import ModelError
from chat_app.models.resolver import available, find
from chat_app.models.weight_import import convert, find_weights, import_model
from chat_app.system.progress import ignore_progress


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "home")


@pytest.fixture
def source(tmp_path: Path, tiny_tokenizer: Any) -> Path:
    """A folder with a tokenizer and no weights."""
    tiny_tokenizer.save_pretrained(tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture(autouse=True)
def _no_limit_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of memory is the child's: in this process it would stay."""
    monkeypatch.setattr("chat_app.models.weight_import._limit_memory", lambda more: None)


def converted(source: Path, tmp_path: Path) -> tuple[Path, str]:
    """What the child process does, in this one."""
    target = tmp_path / "new"
    said = convert(find_weights(source), source, source, target, ignore_progress)
    return target, " ".join(said)


def same_weights(folder: Path, model: Any) -> bool:
    written = load_file(folder / "model.safetensors")
    wanted = dict(model.named_parameters())
    return written.keys() == wanted.keys() and all(torch.equal(one, wanted[name]) for name, one in written.items())


def test_a_checkpoint_of_lightning_without_a_config(source: Path, paths: Paths, make_model: Callable[..., Any]) -> None:
    model = make_model(400, width=128)
    state = {f"model.{name}": one for name, one in model.state_dict().items()}
    settings = argparse.Namespace(lr=1e-4)
    torch.save({"state_dict": state, "hyper_parameters": settings, "loss": np.float64(1.5)}, source / "best.ckpt")
    done = import_model(source / "best.ckpt", paths, name="seed")
    said = " ".join(done.said)
    assert "2 was guessed (the width / 64)" in said
    assert "began with 'model.transformer.'" in said
    assert same_weights(paths.models / "seed", model)
    files = find("seed", paths)
    assert (files.layers, files.width, files.window, files.heads) == (2, 128, 128, 2)
    assert "seed" in [one.name for one in available(paths)]
    with pytest.raises(ModelError, match="already a model 'seed'"):
        import_model(source, paths, name="seed")


def test_a_model_of_transformers_keeps_its_config(source: Path, tmp_path: Path, tiny_model: Any) -> None:
    tiny_model.config.save_pretrained(source)
    torch.save(tiny_model.state_dict(), source / "pytorch_model.bin")
    torch.save({"state": 1}, source / "optimizer.pt")
    folder, _ = converted(source, tmp_path)
    assert same_weights(folder, tiny_model)
    assert json.loads((folder / "config.json").read_text())["n_head"] == 2


def test_the_format_before_torch_1_6_and_linear_layers(source: Path, tmp_path: Path, make_model: Any) -> None:
    model = make_model(400, width=64)
    turned = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    state = {name: one.t().contiguous() if name.endswith(turned) else one for name, one in model.state_dict().items()}
    torch.save({"model": state}, source / "ckpt.pt", _use_new_zipfile_serialization=False)
    folder, said = converted(source, tmp_path)
    assert "transposed" in said
    assert same_weights(folder, model)


def test_another_architecture_by_its_config(source: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    model.config.save_pretrained(source)
    torch.save({f"module.{name}": one for name, one in model.state_dict().items()}, source / "model.pth")
    folder, said = converted(source, tmp_path)
    assert "began with 'module.'" in said
    assert same_weights(folder, model)


class _Program:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("was-run"),)


def test_a_program_in_the_file_is_not_run(source: Path, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (source / "a.bin").write_bytes(pickle.dumps({"x": _Program()}))
    torch.save({"x": _Program()}, source / "b.bin")
    for name in ("a.bin", "b.bin"):
        with pytest.raises(ModelError, match=r"not read|no PyTorch file"):
            convert([source / name], source, source, tmp_path / "bad", ignore_progress)
    assert not (tmp_path / "was-run").exists()
    assert not (tmp_path / "bad").exists()


def test_files_that_do_not_belong_together(source: Path, tmp_path: Path, tiny_model: Any, make_model: Any) -> None:
    make_model(400, width=64).config.save_pretrained(source)
    file = source / "pytorch_model.bin"
    state = tiny_model.state_dict()
    torch.save(state, file)
    with pytest.raises(ModelError, match="has the shape"):
        converted(source, tmp_path)
    tiny_model.config.save_pretrained(source)
    torch.save({name: one for name, one in state.items() if ".ln_1.weight" not in name}, file)
    with pytest.raises(ModelError, match="2 of 28 tensors are missing"):
        converted(source, tmp_path)
    torch.save({**state, "transformer.ln_f.weight": torch.full((32,), float("nan"))}, file)
    with pytest.raises(ModelError, match="no numbers"):
        converted(source, tmp_path)
    torch.save({**state, "huge": torch.zeros(1).expand(10**12)}, file)
    with pytest.raises(ModelError, match="larger than the file"):
        converted(source, tmp_path)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ModelError, match="damaged"):
        converted(source, tmp_path)


def test_biases_are_there_or_none_is(source: Path, tmp_path: Path, tiny_model: Any) -> None:
    tiny_model.config.save_pretrained(source)
    state = dict(tiny_model.state_dict())
    torch.save({name: one for name, one in state.items() if name != "transformer.h.0.ln_1.bias"}, source / "a.pt")
    with pytest.raises(ModelError, match=r"1 of 28 tensors are missing, such as transformer\.h\.0\.ln_1\.bias"):
        converted(source, tmp_path)
    torch.save({name: one for name, one in state.items() if not name.endswith(".bias")}, source / "a.pt")
    target, said = converted(source, tmp_path)
    assert "biases that it does not have are 0" in said
    assert not load_file(target / "model.safetensors")["transformer.ln_f.bias"].any()


def test_other_weights_are_named(source: Path, paths: Paths, tmp_path: Path) -> None:
    (source / "tf_model.h5").write_bytes(b"\x89HDF")
    with pytest.raises(ModelError, match=r"TensorFlow.*from_tf=True"):
        import_model(source, paths)
    with pytest.raises(ModelError, match="no such file"):
        import_model(tmp_path / ("x" * 300), paths)
    (tmp_path / "bare").mkdir()
    torch.save({}, tmp_path / "bare" / "a.pt")
    with pytest.raises(ModelError, match="--tokenizer gpt2"):
        import_model(tmp_path / "bare", paths)
    with pytest.raises(ModelError, match="cannot be its name"):
        import_model(tmp_path / "bare", paths, name="../up", tokenizer=str(source))


def test_reading_has_an_end(source: Path, paths: Paths, monkeypatch: Any, tiny_model: Any) -> None:
    torch.save(tiny_model.state_dict(), source / "a.pt")
    monkeypatch.setattr("chat_app.models.weight_import.MOST_SECONDS", -1.0)
    with pytest.raises(ModelError, match="was stopped"):
        import_model(source, paths)
