"""LoRA (Hu et al. 2021): low-rank adapters of a model whose own weights are frozen.

Adds adapters to a model for training, saves them, and attaches saved ones. The embeddings of new tokens are trained and
saved too, because nothing else could give the format's special tokens a meaning. `lora_files` reads and checks the
files.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from chat_app.config.training import TrainConfig
from chat_app.errors import ModelError
from chat_app.models.lora_files import CONFIG, AdapterFiles
from chat_app.models.saving import replace_folder, write_tokenizer_files
from chat_app.tokenization.encoder import Encoder

_ALL_LINEAR = "all-linear"  # peft: every linear layer but the output.


def add_lora(model: Any, config: TrainConfig, base: str, new_tokens: Sequence[int]) -> Any:
    """A peft model around `model` in which only the adapters and the embeddings of new tokens are trained.

    Args:
        base: the name under which the model is found again.
        new_tokens: ids whose embeddings are trained; tied output embeddings are the same.

    Raises:
        ModelError: the model has no layers of a kind that LoRA knows.
    """
    settings: dict[str, Any] = {
        "r": config.lora_rank,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": _ALL_LINEAR,
        "trainable_token_indices": _token_rows(model, new_tokens),
    }
    wrapped = _add_layers(model, settings)
    wrapped.peft_config["default"].base_model_name_or_path = base
    # Without the whole embedding, which peft saves as soon as it was resized: the adapter has the new rows.
    wrapped.save_pretrained = partial(wrapped.save_pretrained, save_embedding_layers=False)
    for module in wrapped.modules():
        if "lora_A" in dict(module.named_children()):
            module.register_forward_pre_hook(_cast_once)
    return wrapped


def _cast_once(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Cast inputs to autocast's dtype before the base layer and the adapter use them.

    Otherwise each would cast and store them for itself, and an 8-bit layer would compute in float32.
    """
    import torch

    first, *others = inputs
    if torch.is_autocast_enabled(first.device.type):
        first = first.to(torch.get_autocast_dtype(first.device.type))
    return (first, *others)


def attach_adapter(model: Any, adapter: AdapterFiles) -> Any:
    """Attach a saved adapter to its model: merged into the weights, or beside them where they are quantized.

    Raises:
        ModelError: they do not belong together.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    is_quantized = getattr(model, "is_loaded_in_8bit", False) or getattr(model, "is_loaded_in_4bit", False)
    try:
        wrapped = _add_layers(model, dict(adapter.settings))
        report: Any = set_peft_model_state_dict(wrapped, load_file(adapter.weights))
    except (ValueError, RuntimeError, KeyError, IndexError) as error:
        raise ModelError(
            f"The adapter does not fit the model '{adapter.base}'.",
            where=str(adapter.folder),
            advice="It was made for another model, or a file is damaged.",
        ) from error
    if report.unexpected_keys or any("lora_" in name for name in report.missing_keys):
        raise ModelError(f"The adapter does not fit the model '{adapter.base}'.", where=str(adapter.folder))
    whole = wrapped.get_base_model() if is_quantized else wrapped.merge_and_unload()
    return whole.eval().requires_grad_(False) if is_quantized else whole.eval()


def save_adapter(folder: Path, wrapped: Any, encoder: Encoder, card: str = "") -> None:
    """Write an adapter folder: peft's two files, the tokenizer, the format and a card. Whole or not at all."""

    def write(temporary: Path) -> None:
        wrapped.save_pretrained(temporary)
        (temporary / "README.md").unlink(missing_ok=True)  # peft's own card, which cannot name the model.
        file = temporary / CONFIG
        config = json.loads(file.read_text(encoding="utf-8"))
        config["target_modules"] = sorted(config["target_modules"])  # A set: its order would differ each time.
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        write_tokenizer_files(temporary, encoder, card)

    replace_folder(folder, write)


def _add_layers(model: Any, settings: dict[str, Any]) -> Any:
    from peft import LoraConfig, get_peft_model

    from chat_app.models.transformers_internals import Conv1D

    settings["fan_in_fan_out"] = any(isinstance(module, Conv1D) for module in model.modules())
    config = LoraConfig(task_type="CAUSAL_LM", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # About names of transformers that will change, and of tied weights.
        return get_peft_model(model, config)


def _token_rows(model: Any, tokens: Sequence[int]) -> dict[str, list[int]] | None:
    """peft's setting for new tokens: their ids by the name of the embedding, and of the output layer where it is
    untied."""
    if not tokens:
        return None
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    parts = [inner] if outer is None or outer.weight is inner.weight else [inner, outer]
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(part)]: [int(token) for token in tokens] for part in parts}
