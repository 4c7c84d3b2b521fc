"""LoRA (Hu et al. 2021): learning a small addition to a model whose own weights stay as they are.

It puts additions into a model for learning, saves them, and puts saved ones back. The rows of new tokens are learned
and saved too: nothing else could give the format's marks a meaning. What an adapter's files may hold is known to
`adapter_files`.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from chat_app.config.training import TrainConfig
from chat_app.errors import ModelError
from chat_app.models.lora_files import CONFIG, AdapterFiles
from chat_app.models.saving import replace_folder, write_words
from chat_app.tokenization.encoder import Encoder

_ALL_LINEAR = "all-linear"  # peft: every linear layer but the output.


def add_lora(model: Any, config: TrainConfig, base: str, new_tokens: Sequence[int]) -> Any:
    """A peft model around `model` in which only the additions, and the rows of new tokens, are learned.

    Args:
        base: the name under which the model is found again.
        new_tokens: ids whose rows are learned; tied output rows are the same rows.

    Raises:
        ModelError: the model has no layers of a kind that LoRA knows.
    """
    settings: dict[str, Any] = {
        "r": config.lora_rank,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": _ALL_LINEAR,
        "trainable_token_indices": _rows_of(model, new_tokens),
    }
    wrapped = _with_layers(model, settings)
    wrapped.peft_config["default"].base_model_name_or_path = base
    # Not the whole embedding, which peft saves as soon as it has grown: new rows are in the adapter.
    wrapped.save_pretrained = partial(wrapped.save_pretrained, save_embedding_layers=False)
    for module in wrapped.modules():
        if "lora_A" in dict(module.named_children()):
            module.register_forward_pre_hook(_cast_once)
    return wrapped


def _cast_once(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs in the precision of the computing before the base layer and the addition see them.

    Otherwise each would cast and remember them for itself, and a layer in 8 bits would compute in float32.
    """
    import torch

    first, *others = inputs
    if torch.is_autocast_enabled(first.device.type):
        first = first.to(torch.get_autocast_dtype(first.device.type))
    return (first, *others)


def attach(model: Any, adapter: AdapterFiles) -> Any:
    """The model with a saved adapter in it: melted into its weights, or beside them where those are quantized.

    Raises:
        ModelError: they do not belong together.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    is_quantized = getattr(model, "is_loaded_in_8bit", False) or getattr(model, "is_loaded_in_4bit", False)
    try:
        wrapped = _with_layers(model, dict(adapter.settings))
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
        (temporary / "README.md").unlink(missing_ok=True)  # peft's own, about a model that it cannot name.
        file = temporary / CONFIG
        config = json.loads(file.read_text(encoding="utf-8"))
        config["target_modules"] = sorted(config["target_modules"])  # A set: its order would differ each time.
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        write_words(temporary, encoder, card)

    replace_folder(folder, write)


def copy_adapter(adapter: AdapterFiles, folder: Path) -> None:
    """An adapter folder for somebody else."""
    replace_folder(folder, lambda temporary: shutil.copytree(adapter.folder, temporary, dirs_exist_ok=True))


def _with_layers(model: Any, settings: dict[str, Any]) -> Any:
    from peft import LoraConfig, get_peft_model

    from chat_app.models.transformers_internals import Conv1D

    settings["fan_in_fan_out"] = any(isinstance(module, Conv1D) for module in model.modules())
    config = LoraConfig(task_type="CAUSAL_LM", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # About names of transformers that will change, and of tied weights.
        return get_peft_model(model, config)


def _rows_of(model: Any, tokens: Sequence[int]) -> dict[str, list[int]] | None:
    """The new tokens in peft's words: the name of the embedding, and of the output layer where that is not tied."""
    if not tokens:
        return None
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    parts = [inner] if outer is None or outer.weight is inner.weight else [inner, outer]
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(part)]: [int(token) for token in tokens] for part in parts}
