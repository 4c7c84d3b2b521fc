"""Bringing a model into memory, keeping one there, and giving the memory back.

Finding a model and judging its files is `model_files`; this file loads: precision, device, quantization, the format of
its conversations and the engine that writes with it.
"""

from __future__ import annotations

import inspect
import logging
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers

from chat_app.adapters import attach
from chat_app.config import AUTOMATIC, LoadConfig, Paths
from chat_app.devices import resolve_device, resolve_precision
from chat_app.encoding import Encoder
from chat_app.engine import Engine
from chat_app.errors import ChatAppError, FormatError, ModelError, SettingError
from chat_app.formats import get_format
from chat_app.gpt2_files import read_tokenizer, read_weights
from chat_app.gpt2_weights import fits_tiles
from chat_app.machine_code import kernel
from chat_app.memory import release_memory
from chat_app.model_building import building
from chat_app.model_checks import read_config, size_of
from chat_app.model_engine import SMALL_MODEL, faster, form_of, start_engine
from chat_app.model_files import DEFAULT_WINDOW, ModelFiles, check_memory, check_weights, download, find
from chat_app.recognition import Recognised, recognise

LOGGER = logging.getLogger(__name__)
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt", "sentencepiece.bpe.model")
_GPT2_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
_DEVICE = re.compile(r"automatic|cpu|mps|cuda(:\d{1,2})?")


@dataclass(frozen=True)
class LoadedModel:
    """A model that can chat.

    Attributes:
        name: what it was asked for by.
        model: of transformers; its weights may have been moved into the engine.
        tokenizer: of transformers, with the format's marks.
        encoder: conversations -> prompts.
        engine: prompts -> tokens.
        files: where it came from.
        recognised: its format and why.
        precision: "float32", "bfloat16", "float16", "8-bit" or "4-bit".
        device: "cpu", "cuda", "cuda:1", "mps".
        memory_bytes: what its tensors take, measured.
    """

    name: str
    model: Any
    tokenizer: Any
    encoder: Encoder
    engine: Engine
    files: ModelFiles
    recognised: Recognised
    precision: str
    device: str
    memory_bytes: int


def load(name: str, config: LoadConfig, paths: Paths) -> LoadedModel:
    """Find a model, load it and start its engine.

    Raises:
        ModelError, FormatError, SettingError: it cannot be found, trusted, loaded, or used in the format asked for.
    """
    files, device, precision = _found(name, config, paths)
    form = form_of(files, precision, device)
    if form != "shared":
        kernel(form == "8-bit")  # It comes while the files are read.
    stored = "float32" if form == "8-bit" else precision
    model, tokenizer, files, recognised = _parts(files, stored, device, keep=form == "shared")
    if config.format != AUTOMATIC:
        recognised = Recognised(config.format, True, "it was chosen by hand")
    chat_format = get_format(recognised.format)
    if chat_format.has_types and "token_type_ids" not in inspect.signature(model.forward).parameters:
        raise FormatError(f"The format '{chat_format.name}' needs token types, which this model does not have.")
    encoder = Encoder(tokenizer, chat_format, files.window)
    _ = encoder.end_ids  # A chat template that cannot be used says so now.
    fit_embeddings(model, tokenizer)
    engine, precision = start_engine(model, files, precision)
    device = str(model.device)
    return LoadedModel(
        name, model, tokenizer, encoder, engine, files, recognised, precision, device, engine.memory_bytes
    )


def load_parts(
    name: str, config: LoadConfig, paths: Paths, *, compute_in: str | None = None
) -> tuple[Any, Any, ModelFiles, Recognised]:
    """A model, its tokenizer, its files, and the format it was trained with, whatever the format asked for.

    Args:
        compute_in: "float32", "bfloat16" or "float16" for what is not quantized of a quantized model; None chooses.

    Raises:
        ModelError, SettingError: it cannot be found, trusted or loaded.
    """
    files, device, precision = _found(name, config, paths)
    model, tokenizer, files, recognised = _parts(files, precision, device, compute_in)
    if precision == AUTOMATIC:
        model = faster(model)
    return model, tokenizer, files, recognised


def _found(name: str, config: LoadConfig, paths: Paths) -> tuple[ModelFiles, str, str]:
    """A model's files, and the device and precision for it, which fit into the memory.

    A small model on a processor stays "automatic": what is faster depends on both, so it is tried once it is loaded.
    """
    device = choose_device(config.device)
    files = find(name, paths)
    precision = config.precision
    if precision != AUTOMATIC or device != "cpu" or files.parameters >= SMALL_MODEL:
        precision = resolve_precision(precision, device.partition(":")[0])
    check_memory(files, precision, device)
    return files, device, precision


def _parts(
    files: ModelFiles, precision: str, device: str, compute_in: str | None = None, keep: bool = True
) -> tuple[Any, Any, ModelFiles, Recognised]:
    """`keep`: whether the weights will stay what they are, and are not moved into tiles."""
    files = download(files)
    empty = check_weights(files)
    keep = keep or files.adapter is not None or not fits_tiles(empty)
    tokenizer = _tokenizer(files.words_folder, files.gguf)
    model = _load_model(files, empty, precision, device, compute_in, keep)
    if files.adapter is not None:
        fit_embeddings(model, tokenizer)
        model = attach(model, files.adapter)
    return model, tokenizer, files, recognise(files.words_folder, tokenizer, files.config)


def load_words(name: str, paths: Paths) -> tuple[Any, ModelFiles, Recognised]:
    """A model's tokenizer, its files and its format, without its weights (which are checked, and downloaded).

    Raises:
        ModelError: it cannot be found or trusted.
    """
    files = download(find(name, paths))
    check_weights(files)
    tokenizer = _tokenizer(files.words_folder, files.gguf)
    return tokenizer, files, recognise(files.words_folder, tokenizer, files.config)


def load_tokenizer(name: str | Path, paths: Paths | None = None) -> Any:
    """The tokenizer in a folder (which needs no model), or of a model.

    Raises:
        ModelError: there is none.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _tokenizer(folder, None)
    files = download(find(str(name), paths or Paths.default()))
    return _tokenizer(files.words_folder, files.gguf)


def window_of(name: str | Path, paths: Paths | None = None) -> int:
    """How many tokens a model sees; 1024, as GPT-2, for a folder that has only a tokenizer.

    Raises:
        ModelError: there is no such model.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return find(str(name), paths or Paths.default()).window
    config = read_config(folder) if (folder / "config.json").exists() else {}
    return size_of(config, "n_positions", "max_position_embeddings", "n_ctx") or DEFAULT_WINDOW


def choose_device(device: str) -> str:
    """The device for a setting: automatic, cpu, mps, cuda or cuda:1.

    Raises:
        SettingError: it is not here, or no device at all.
    """
    if not _DEVICE.fullmatch(device):
        raise SettingError(
            "device", f"'{device[:40]}' is no device.", advice="Write automatic, cpu, cuda, cuda:0 or mps."
        )
    kind = resolve_device(device)
    number = device.partition(":")[2]
    if number and int(number) >= torch.cuda.device_count():
        raise SettingError("device", f"There is no GPU number {number} here.", advice="Choose automatic.")
    return device if number else kind


def fit_embeddings(model: Any, tokenizer: Any) -> None:
    """Give every token of the tokenizer a row in the embeddings; new rows are the mean of the old ones."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) <= rows:
        return
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            if layer is not None:
                layer.weight[rows:] = layer.weight[:rows].float().mean(0).to(layer.weight.dtype)


def _tokenizer(folder: Path | None, gguf: str | None) -> Any:
    assert folder is not None, "downloaded before"
    if gguf:
        return _explained(transformers.AutoTokenizer.from_pretrained, folder, gguf_file=gguf, local_files_only=True)
    pairs = [(folder / one, folder / other) for one, other in _GPT2_FILES]
    pair = next((pair for pair in pairs if all(file.is_file() for file in pair)), None)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        if pair is None:
            raise ModelError("There is no tokenizer.", where=str(folder), advice="It needs a tokenizer.json.")
        known = (folder / "config.json").exists() or (folder / "tokenizer_config.json").exists()
        if pair[0].name == "encoder.json" or not known:
            return _explained(transformers.GPT2Tokenizer, vocab=str(pair[0]), merges=str(pair[1]))
    try:
        tokenizer = _explained(read_tokenizer, folder)
    except ModelError:
        tokenizer = None  # The other way may do, or says so again.
    if tokenizer is not None:
        return tokenizer
    return _explained(
        transformers.AutoTokenizer.from_pretrained, folder, trust_remote_code=False, local_files_only=True
    )


def _load_model(
    files: ModelFiles, empty: Any | None, precision: str, device: str, compute_in: str | None, keep: bool
) -> Any:
    """Weights into memory. Whatever of them is missing or misshapen is an error, never replaced by chance."""
    if precision in ("8-bit", "4-bit"):
        return _from_pretrained(files, _quantized(files, precision, device, compute_in)).eval().requires_grad_(False)
    number = torch.float32 if precision == AUTOMATIC else getattr(torch, precision)
    if "quantization_config" in files.config:  # Its weights are no numbers to learn, and know one way to a device.
        return _from_pretrained(files, {"dtype": number, "device_map": {"": device}}).eval().requires_grad_(False)
    model = None
    if empty is not None and files.folder is not None:
        model = _explained(read_weights, empty, files.folder, number, device, keep=keep)
    if model is None:
        model = _from_pretrained(files, {"dtype": number})
    return _explained(model.to, device).eval().requires_grad_(True)


def _from_pretrained(files: ModelFiles, numbers: dict[str, Any]) -> Any:
    """A model as transformers loads it; `numbers`: its settings for precision and device."""
    settings: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True, "output_loading_info": True}
    settings["ignore_mismatched_sizes"] = True  # They are reported, and refused below.
    if files.gguf:
        settings["gguf_file"] = files.gguf
    else:
        settings["use_safetensors"] = True
    build = transformers.AutoModelForCausalLM.from_pretrained
    with building():
        model, report = _explained(build, files.folder, **settings, **numbers)
    broken = [*report["missing_keys"], *report["mismatched_keys"], *report.get("error_msgs", [])]
    if broken:
        raise ModelError(
            f"The weights do not fit config.json ({len(broken)} tensors, such as {str(broken[0])[:80]}).",
            where=str(files.folder),
            advice="Copy or download the model again.",
        )
    return model


def _quantized(files: ModelFiles, precision: str, device: str, compute_in: str | None) -> dict[str, Any]:
    """Settings for bitsandbytes."""
    if find_spec("bitsandbytes") is None or find_spec("accelerate") is None:
        raise ModelError("8-bit and 4-bit need bitsandbytes.", advice="Run pip install bitsandbytes accelerate.")
    if files.gguf:
        raise ModelError("This file is quantized already.", advice="Choose automatic, float32 or bfloat16.")
    if device == "mps":
        raise ModelError("8-bit and 4-bit do not run on this GPU.", advice="Choose automatic, or the device cpu.")
    number = getattr(torch, compute_in or resolve_precision(AUTOMATIC, device.partition(":")[0]))
    if precision == "8-bit":
        # It says with each product that it casts its input.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        config = transformers.BitsAndBytesConfig(load_in_8bit=True)
    else:
        if files.width % 64:
            raise ModelError(
                f"4-bit needs a width that is a multiple of 64, and this model is {files.width} wide.",
                advice="Choose 8-bit.",
            )
        config = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=number
        )
    return {"quantization_config": config, "dtype": number, "device_map": {"": device}}


def _explained(call: Any, *arguments: Any, **settings: Any) -> Any:
    """Call into transformers; what it raises becomes a sentence."""
    try:
        return call(*arguments, **settings)
    except ChatAppError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ModelError("The memory is not enough for this model.", advice="Choose 8-bit or 4-bit.") from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # Files of other people: libraries of this size may raise anything about them.
        LOGGER.info("loading failed", exc_info=True)
        line = str(error).strip().split("\n")[0][:300]
        raise ModelError(f"The model cannot be loaded: {line or type(error).__name__}") from error


MOST_GUESTS = 2


class ModelStore:
    """The model in use, and on a shared server a few guests beside it: models that visitors taught for themselves.

    It may be used from any thread; loading another model does not disturb chats with those that are there.
    """

    def __init__(self, paths: Paths):
        self._paths = paths
        self._loading = threading.Lock()  # One load at a time.
        self._current: LoadedModel | None = None
        self._guests: dict[str, LoadedModel] = {}  # The one used last stands last. Replaced, never changed.

    @property
    def current(self) -> LoadedModel | None:
        """The model in use, or None."""
        return self._current

    def use(self, name: str, config: LoadConfig | Mapping[str, Any] | None = None) -> LoadedModel:
        """Load a model and put it in the place of the one in use, whose chats end. If that fails, nothing changes.

        Raises:
            ModelError, FormatError, SettingError: as `load`.
        """
        settings = config if isinstance(config, LoadConfig) else LoadConfig(**(config or {}))
        with self._loading:
            new = load(name, settings, self._paths)
            old, self._current = self._current, new
            if old is not None:
                old.engine.close()
            del old
            release_memory()
            return new

    def guest(self, name: str) -> LoadedModel:
        """A model beside the one in use, loaded if it is not there. The guest that nobody has used for longest leaves.

        Raises:
            ModelError, FormatError: as `load`.
        """
        with self._loading:
            guests = dict(self._guests)
            loaded = guests.pop(name, None) or load(name, LoadConfig(), self._paths)
            leaving = list(guests)[: max(len(guests) - MOST_GUESTS + 1, 0)]
            for old in [guests.pop(one) for one in leaving]:
                old.engine.close()
            self._guests = {**guests, name: loaded}
            if leaving:
                release_memory()
            return loaded

    def here(self, name: str | None) -> LoadedModel | None:
        """The guest of that name if it is loaded; the model in use for None."""
        return self._current if name is None else self._guests.get(name)

    def unload(self) -> None:
        """Give the memory of the model in use, and of all guests, back. Chats with them end with an error."""
        with self._loading:
            leaving = [*self._guests.values(), *([self._current] if self._current is not None else [])]
            self._current, self._guests = None, {}
            while leaving:
                leaving.pop().engine.close()
            release_memory()
