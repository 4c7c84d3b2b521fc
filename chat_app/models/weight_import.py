"""Imports a model whose weights are a PyTorch file: `pytorch_model.bin`, a checkpoint of Lightning, a bare state dict.

A child process with limits reads the file, checks it against config.json, and writes safetensors into the home, where
the model is found by its name. `import_model` starts it.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chat_app.config.paths import STARTER, Paths
from chat_app.errors import ModelError
from chat_app.models.resolver import download, find
from chat_app.models.validation import check_kind, read_config, read_object
from chat_app.runs.run import NAME
from chat_app.system.child_job import run_in_child
from chat_app.system.progress import Progress, ProgressCallback, ignore_progress

if TYPE_CHECKING:
    from torch import Tensor

MOST_SECONDS = 1800.0
_MEMORY_BYTES = 4 << 30  # Beside three times the file: mapped, in float32, and a copy of what has to be turned.
_MOST_FILE = 64 << 30
_ENDINGS = (".bin", ".pt", ".pth", ".ckpt")
_INDEX = "pytorch_model.bin.index.json"
_NO_WEIGHTS = re.compile(r"(training_args|optimizer|scheduler|rng_state|scaler).*", re.IGNORECASE)
_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "chat_template.jinja", "chat_format.json",
    "generation_config.json", "encoder.json", "vocab.bpe",
)  # fmt: skip
_ARE_TOKENIZER = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "encoder.json")
_MOST_SIDE_FILE = 64 << 20
_OTHER_WEIGHTS = {
    ".h5": ("TensorFlow", "TFAutoModelForCausalLM.from_pretrained(FOLDER)"),
    ".msgpack": ("Flax", "FlaxAutoModelForCausalLM.from_pretrained(FOLDER)"),
}


@dataclass(frozen=True)
class Imported:
    """A model that was imported: its name, its folder, and sentences about what was done."""

    name: str
    folder: Path
    said: tuple[str, ...]


def import_model(
    source: Path, paths: Paths, *, name: str = "", tokenizer: str = "", progress: ProgressCallback = ignore_progress
) -> Imported:
    """Import the model at `source`, a file of PyTorch or the folder of one, into the home.

    Args:
        name: what it will be called; empty takes it from the file or folder.
        tokenizer: a model or folder whose tokenizer it has, where none lies beside the weights.

    Raises:
        ModelError: it cannot be read, or is not the model that its config.json describes.
    """
    files = find_weights(source)
    folder = source if source.is_dir() else source.parent
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", source.resolve().stem).strip("-._")[:64]
    target = choose_target(name, paths)
    tokenizer_folder = folder
    if tokenizer:
        here = Path(tokenizer).expanduser()
        tokenizer_folder = here if here.is_dir() else download(find(tokenizer, paths)).tokenizer_folder
    if not any((tokenizer_folder / one).is_file() for one in _ARE_TOKENIZER):
        raise ModelError(
            "There is no tokenizer beside the weights." if not tokenizer else "There is no tokenizer.",
            where=str(tokenizer_folder),
            advice="Say which one it has: --tokenizer gpt2, or a folder with its files.",
        )
    ends_at = time.monotonic() + MOST_SECONDS

    def watch(now: Progress) -> None:
        if time.monotonic() > ends_at:
            raise ModelError("Reading it took more than half an hour and was stopped.", where=str(source))
        progress(now)

    paths.make_home()
    said: list[str] = run_in_child(f"{__name__}.convert", files, folder, tokenizer_folder, target, progress=watch)
    return Imported(name, target, tuple(said))


def find_weights(source: Path) -> list[Path]:
    """The PyTorch files at `source`: itself, or those of a folder.

    Raises:
        ModelError: there are none, or several that could be meant.
    """
    where = str(source)[:300]
    if not _exists(source):
        raise ModelError("There is no such file or folder.", where=where, advice="Give the folder of a model.")
    present = sorted(one for one in source.iterdir() if one.is_file()) if source.is_dir() else [source]
    names = [one.name for one in present]
    if source.is_dir() and _INDEX in names:
        listed = read_object(source / _INDEX, 16 << 20).get("weight_map")
        parts = sorted({str(one) for one in listed.values()}) if isinstance(listed, dict) else []
        missing = [one for one in parts if one not in names]
        if missing or not parts:
            raise ModelError(f"Parts of the weights are missing: {', '.join(missing)[:200]}.", where=where)
        found = [source / one for one in parts]
    else:
        found = [one for one in present if one.suffix in _ENDINGS and not _NO_WEIGHTS.fullmatch(one.name)]
        found = [one for one in found if one.name == "pytorch_model.bin"] or found
        if len(found) > 1:
            raise ModelError(
                f"There are several files of weights: {', '.join(one.name for one in found)[:200]}.",
                where=where,
                advice="Give the path of one of them.",
            )
    if not found:
        _explain_none(present, where)
    if sum(one.stat().st_size for one in found) > _MOST_FILE:
        raise ModelError("The weights are larger than 64 GB.", where=where)
    return found


def _exists(source: Path) -> bool:
    try:
        return source.exists()
    except OSError:  # The name is longer than names can be.
        return False


def _explain_none(present: list[Path], where: str) -> None:
    for ending, (library, call) in _OTHER_WEIGHTS.items():
        if any(one.suffix == ending for one in present):
            raise ModelError(
                f"The weights are those of {library} ({ending}), which this program does not read.",
                where=where,
                advice=f"With transformers 4 and {library}: {call}, then save it for PyTorch; its "
                "documentation says how (from_tf=True or from_flax=True, and save_pretrained).",
            )
    if any(one.suffix == ".safetensors" for one in present):
        raise ModelError(
            "It is safetensors already.", where=where, advice="It needs no import: give its folder as the model."
        )
    raise ModelError(
        "There are no PyTorch weights.",
        where=where,
        advice="They are called pytorch_model.bin, or end in .ckpt or .pt.",
    )


def choose_target(name: str, paths: Paths) -> Path:
    """The folder of a model that is to be imported under a name.

    Raises:
        ModelError: the name cannot be used.
    """
    if not NAME.fullmatch(name) or name == STARTER:
        raise ModelError(
            f"'{name[:80]}' cannot be its name.", advice="Give one with --name: letters, digits, '-', '_'."
        )
    if (paths.runs / name).exists() or (paths.models / name).exists():
        raise ModelError(f"There is already a model '{name}'.", advice="Give another name with --name.")
    return paths.models / name


def convert(
    files: list[Path], folder: Path, tokenizer_folder: Path, target: Path, progress: ProgressCallback
) -> list[str]:
    """Read the weights, check them, and write the model folder. The child process calls this.

    Returns:
        Sentences about what was done.
    """
    from chat_app.models.pickled_weights import read_state
    from chat_app.models.saving import replace_folder

    _limit_memory(3 * sum(one.stat().st_size for one in files) + _MEMORY_BYTES)
    state: dict[str, Tensor] = {}
    for file in files:
        progress(Progress(f"Reading {file.name} ..."))
        state |= read_state(file)
    said = [f"Read {len(state)} tensors from {', '.join(one.name for one in files)[:200]}."]
    config = read_config(folder) if (folder / "config.json").is_file() else None
    progress(Progress("Checking the weights ..."))
    config, tensors = _fit(state, config, str(files[0]), said)
    progress(Progress("Writing safetensors ..."))
    replace_folder(target, lambda new: _write(new, config, tensors, tokenizer_folder))
    total = sum(one.numel() for one in tensors.values())
    said.append(f"Wrote {total / 1e6:,.1f} million parameters as safetensors to {target}.")
    return said


def _fit(
    state: dict[str, Tensor], config: dict[str, Any] | None, where: str, said: list[str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the tensors, by the names of transformers, that belong together.

    Raises:
        ModelError: they do not.
    """
    from chat_app.models import pickled_weights as pickled
    from chat_app.models.meta_model import build_meta_model

    prefix = pickled.find_gpt2_prefix(state)
    if config is None and prefix is None:
        raise ModelError(
            "There is no config.json, and the weights are not those of a GPT-2.",
            where=where,
            advice="Put the model's config.json beside the weights.",
        )
    is_gpt2 = prefix is not None and (config is None or config.get("model_type") == "gpt2")
    tensors = pickled.rename_gpt2(state, prefix, said) if is_gpt2 and prefix is not None else {}
    if config is None:
        config = pickled.gpt2_config(tensors, said)
    check_kind(config.get("model_type"), where)
    if is_gpt2:
        rows = tensors["transformer.wte.weight"].shape[0]
        if config.get("vocab_size") != rows:
            said.append(f"config.json says a vocabulary of {config.get('vocab_size')}; the weights have {rows} rows.")
        config = {**config, "vocab_size": rows, "tie_word_embeddings": pickled.HEAD not in tensors}
    try:
        empty = build_meta_model(config)
    except Exception as error:  # The config may be any file, and its class may raise anything.
        line = " ".join(str(error).split())[:200]
        raise ModelError(f"config.json describes no model ({line}).", where=where) from error
    shapes = {name: tuple(one.shape) for name, one in empty.named_parameters()}
    if not is_gpt2:
        tensors = pickled.rename_by_config(state, shapes, empty.base_model_prefix, said)
    return config, _check(tensors, shapes, where, said)


def _check(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], where: str, said: list[str]
) -> dict[str, Tensor]:
    """Exactly the tensors that the model has, in a dtype that it can be loaded in.

    Raises:
        ModelError: some are missing, have another shape, or hold what is no number.
    """
    import torch

    has_biases = any(name.endswith(".bias") for name in tensors if name in shapes)
    missing = [name for name in shapes if name not in tensors]
    if not has_biases:  # As nanoGPT trains models; then they are 0.
        missing = [name for name in missing if not name.endswith(".bias")]
    if missing:
        raise ModelError(
            f"{len(missing)} of {len(shapes)} tensors are missing, such as {missing[0][:100]}.",
            where=where,
            advice="The file is damaged, or belongs to another config.json.",
        )
    wrong = [name for name, shape in shapes.items() if name in tensors and tuple(tensors[name].shape) != shape]
    if wrong:
        name = wrong[0]
        raise ModelError(
            f"{name[:100]} has the shape {tuple(tensors[name].shape)}, and config.json describes {shapes[name]}.",
            where=where,
            advice="Put the right config.json beside the weights.",
        )
    if zero := [name for name in shapes if name not in tensors]:
        said.append(f"The {len(zero)} biases that it does not have are 0.")
    if unused := [name for name in tensors if name not in shapes]:
        said.append(f"{len(unused)} tensors that the model does not use were left out, such as {unused[0][:100]}.")
    kept = {}
    for name, shape in shapes.items():
        one = tensors.get(name)
        one = torch.zeros(shape, dtype=torch.float32, device="cpu") if one is None else one.detach()
        if one.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            one = one.float()
        if not math.isfinite(one.float().abs().sum(dtype=torch.float64).item()):
            raise ModelError(f"{name[:100]} holds values that are no numbers.", where=where, advice="Train it again.")
        kept[name] = one.contiguous()
    return kept


def _write(new: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], tokenizer_folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: one.clone() for name, one in tensors.items()}, new / "model.safetensors", {"format": "pt"})
    dtypes = {str(one.dtype).removeprefix("torch.") for one in tensors.values()}
    settled = {name: one for name, one in config.items() if name not in ("torch_dtype", "_name_or_path")}
    settled["dtype"] = dtypes.pop() if len(dtypes) == 1 else "float32"
    (new / "config.json").write_text(json.dumps(settled, indent=2) + "\n", encoding="utf-8")
    for name in _TOKENIZER:
        file = tokenizer_folder / name
        if file.is_file():
            if file.stat().st_size > _MOST_SIDE_FILE:
                raise ModelError(f"{name} is larger than {_MOST_SIDE_FILE >> 20} MiB.", where=str(tokenizer_folder))
            shutil.copyfile(file, new / name)


def _limit_memory(more: int) -> None:
    """Let this process take only so many bytes more than it has, where the system knows such limits."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
