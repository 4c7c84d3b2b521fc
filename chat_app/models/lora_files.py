"""Reads and checks the files of a LoRA adapter, before anything is loaded.

An adapter folder is written by peft: adapter_config.json and adapter_model.safetensors. Only LoRA is supported, with
trained embeddings of new tokens; each setting is checked, because some of peft's name programs to import.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chat_app.errors import ModelError
from chat_app.models.validation import read_object, refuse_programs, refuse_without_safetensors, tensor_shapes

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
NEW_ROWS = ".token_adapter.trainable_tokens_delta"
_MOST_RANK = 4096
_MOST_NAMES = 20_000
_MODULE = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_USED = ("r", "lora_alpha", "target_modules", "trainable_token_indices", "use_rslora", "base_model_name_or_path")
# Settings without an effect once the weights are trained.
_WITHOUT_EFFECT = (
    *("peft_type", "task_type", "peft_version", "inference_mode", "auto_mapping", "revision", "fan_in_fan_out"),
    *("init_lora_weights", "lora_dropout", "megatron_core", "qalora_group_size", "ensure_weight_tying"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config", "exclude_modules"),
)


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter on disk.

    Attributes:
        folder: has its two files, and often a tokenizer.
        base: the name of its base model, as the adapter gives it.
        rank: of its matrices A and B.
        scale: the factor of the product B A.
        modules: full names of the modules that it changes.
        settings: peft's settings that matter, checked: r, lora_alpha, use_rslora, target_modules and
        trainable_token_indices.
        tokens: ids of the tokens whose embeddings it has, in the order of the rows.
        parameters: how many weights it has. weight_bytes: the size of its file.
    """

    folder: Path
    base: str
    rank: int
    scale: float
    modules: tuple[str, ...]
    settings: dict[str, Any]
    tokens: tuple[int, ...]
    parameters: int
    weight_bytes: int

    @property
    def weights(self) -> Path:
        """The file of its weights."""
        return self.folder / WEIGHTS


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter instead of a whole model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def read_adapter(folder: Path) -> AdapterFiles:
    """The adapter in a folder.

    Raises:
        ModelError: it is damaged, of another kind than LoRA, or has settings that are not supported.
    """
    where = str(folder / CONFIG)
    config = read_object(folder / CONFIG)
    if (folder / "tokenizer_config.json").is_file():
        refuse_programs(read_object(folder / "tokenizer_config.json"), where)
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"Adapters of the kind '{str(config.get('peft_type'))[:40]}' are unknown here.",
            where=where,
            advice="Use a LoRA adapter.",
        )
    for name, value in config.items():
        if value not in (None, False, "none", [], {}) and name not in (*_USED, *_WITHOUT_EFFECT):
            raise ModelError(f"The adapter's setting '{name[:60]}' is not supported.", where=where)
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not 0 < len(base) <= 1000:
        raise ModelError("The adapter does not say which model it belongs to.", where=where)
    if not (folder / WEIGHTS).is_file():
        refuse_without_safetensors([file.name for file in folder.iterdir()], str(folder))
    shapes = tensor_shapes(folder / WEIGHTS)
    rank, scale = _strength(config, where)
    modules, rows = _modules(shapes, rank, str(folder / WEIGHTS))
    tokens = _tokens(config.get("trainable_token_indices"), rows, where)
    return AdapterFiles(
        folder,
        base,
        rank,
        scale,
        modules,
        {
            "r": rank,
            "lora_alpha": config["lora_alpha"],
            "use_rslora": bool(config.get("use_rslora")),
            "target_modules": list(modules),
            "trainable_token_indices": config.get("trainable_token_indices") or None,
        },
        tokens,
        sum(math.prod(shape) for shape in shapes.values()),
        (folder / WEIGHTS).stat().st_size,
    )


def _strength(config: Mapping[str, Any], where: str) -> tuple[int, float]:
    """The rank, and the factor of the product B A: alpha / rank, or alpha / sqrt(rank)."""
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= _MOST_RANK:
        raise ModelError(f"The adapter's rank is {str(rank)[:20]}.", where=where, advice="The file is damaged.")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < 1e6:
        raise ModelError(f"The adapter's alpha is {str(alpha)[:20]}.", where=where, advice="The file is damaged.")
    return rank, alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _modules(shapes: Mapping[str, tuple[int, ...]], rank: int, where: str) -> tuple[tuple[str, ...], int]:
    """The modules that the adapter changes, and how many embeddings of tokens it has."""
    wrong = ModelError("The adapter's weights are not what its settings say.", where=where, advice="Copy it again.")
    found: dict[str, set[str]] = {}
    rows = 0
    for name, shape in shapes.items():
        module, _, part = name.removeprefix(PREFIX).partition(".lora_")
        if name.startswith(PREFIX) and name.endswith(NEW_ROWS) and len(shape) == 2:
            rows = shape[0]
        elif (
            name.startswith(PREFIX)
            and _MODULE.fullmatch(module)
            and len(shape) == 2
            and ((part == "A.weight" and shape[0] == rank) or (part == "B.weight" and shape[1] == rank))
        ):
            found.setdefault(module, set()).add(part)
        else:
            raise wrong
    if not found or len(found) > _MOST_NAMES or any(len(parts) != 2 for parts in found.values()):
        raise wrong
    return tuple(sorted(found)), rows


def _tokens(indices: Any, rows: int, where: str) -> tuple[int, ...]:
    """The ids of the trained tokens: the same list under the name of every embedding."""
    lists = list(indices.values()) if isinstance(indices, dict) else [indices or []]
    wrong = any(not isinstance(one, list) or one != lists[0] for one in lists)
    if wrong or len(lists[0]) != rows or any(type(one) is not int or not 0 <= one < 2**24 for one in lists[0]):
        raise ModelError("The adapter's list of tokens does not fit its weights.", where=where, advice="Copy it again.")
    return tuple(lists[0])
