"""The ways to learn, made ready: a model with every weight to be learned, or with LoRA on weights that stay.

Which way is decided in `memory_estimate`; this file loads the model for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import STARTER, Paths
from chat_app.config.training import TrainConfig
from chat_app.errors import ModelError, SettingError
from chat_app.models.bitsandbytes_internals import keep_differentiable
from chat_app.models.loading import fit_embeddings, load_parts
from chat_app.models.lora import add_lora
from chat_app.models.lora_merge import merge
from chat_app.models.resolver import ModelFiles
from chat_app.models.transformers_internals import checkpoint_activations, is_gelu_new

_STORED = {"lora-8bit": "8-bit", "lora-4bit": "4-bit"}


@dataclass(frozen=True)
class TrainableModel:
    """A model that is ready to be trained.

    Attributes:
        model: for the Trainer: a transformers model in float32, or a peft model around one.
        base: where the weights lie to which an addition is learned; None where every weight is learned.
    """

    model: Any
    base: Path | None


def load_trainable_model(
    config: TrainConfig,
    files: ModelFiles,
    tokenizer: Any,
    new_tokens: Sequence[int],
    *,
    precision: str,
    device: str,
    paths: Paths,
    folder: Path,
) -> TrainableModel:
    """The model of `config`, ready for its method.

    Args:
        files: of the model that the name stands for. tokenizer: with the format's marks.
        new_tokens: the ids of marks that the model has never seen.
        precision: of the computing.
        folder: of the run, where a base model is put that has to be made first.

    Raises:
        ModelError, SettingError: the model cannot be loaded, or cannot take the method.
    """
    if config.method == "full":
        model, *_ = load_parts(config.model, LoadConfig(precision="float32", device="cpu"), paths)
        fit_embeddings(model, tokenizer)
        _prepare(model, config)
        return TrainableModel(model.requires_grad_(True), None)
    if files.gguf is not None:
        raise ModelError("This model's file takes no LoRA.", advice="Choose the method full.")
    if config.optimizer == "muon":
        raise SettingError("optimizer", "Muon is for learning every weight.", advice="Choose adamw for LoRA.")
    name = _whole_model(config.model, files, paths, folder)
    stored = LoadConfig(precision=_STORED.get(config.method, precision), device=device)
    model, _, files, _ = load_parts(name, stored, paths, compute_in=precision)
    fit_embeddings(model, tokenizer)
    _prepare(model, config)
    return TrainableModel(add_lora(model, config, name, new_tokens), files.folder)


def _whole_model(name: str, files: ModelFiles, paths: Paths, folder: Path) -> str:
    """The name under which an adapter finds its base again. An adapter is no base: it is merged first."""
    if files.adapter is not None:
        base = folder / "base"
        if not (base / "config.json").is_file():
            merge(name, base, paths)
        return str(base)
    if files.kind == "folder" and name != STARTER:
        return str(files.folder)
    return name


def _prepare(model: Any, config: TrainConfig) -> None:
    """What the settings change in the layers."""
    prepare_layers(model, config.dropout)
    if config.gradient_checkpointing == "on":
        checkpoint_activations(model)


def prepare_layers(model: Any, dropout: float) -> None:
    """Give every dropout layer this rate (-1 leaves the model's own), and GPT-2's activation its fast form."""
    import torch

    for module in model.modules():
        keep_differentiable(module)
        if is_gelu_new(module):
            # The same function as one operation instead of eight, which remembers an eighth for the way back.
            module.forward = _fast_gelu
        if dropout < 0:
            continue
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
        elif isinstance(getattr(module, "attn_dropout", None), float):
            module.attn_dropout = dropout
    if dropout < 0:
        return
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout", "hidden_dropout"):
        if hasattr(model.config, name):
            setattr(model.config, name, dropout)


def _fast_gelu(values: Any) -> Any:
    from torch.nn import functional

    return functional.gelu(values, approximate="tanh")
