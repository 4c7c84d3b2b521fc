"""Loads a checkpoint: weights and tokenizer, on a device, in a precision, quantized, with an adapter. Starts no
engine."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import transformers

from chat_app.config.fields import AUTOMATIC
from chat_app.config.loading import EXACT, LoadConfig
from chat_app.config.paths import Paths
from chat_app.errors import ModelError, NotEnoughMemoryError, SettingError
from chat_app.formatting import format_bytes
from chat_app.models.bitsandbytes_internals import silence_products
from chat_app.models.building import building
from chat_app.models.device import resolve_device, resolve_precision
from chat_app.models.gpt2_fast_loading import read_weights
from chat_app.models.library_calls import call_library
from chat_app.models.lora import attach_adapter
from chat_app.models.resolver import ModelFiles, check_weights, download, estimate_memory, find
from chat_app.models.tokenizer import read_tokenizer_files
from chat_app.models.validation import tensor_dtypes, weight_files
from chat_app.models.weight_size import is_packed
from chat_app.system.cpu import bfloat16_is_fast
from chat_app.tokenization.chat_tokenizer import ChatTokenizer
from chat_app.tokenization.format_detection import DetectedFormat, detect_format

_DEVICE = re.compile(r"automatic|cpu|mps|cuda(:\d{1,2})?")


def load_parts(
    name: str, config: LoadConfig, paths: Paths, *, compute_in: str | None = None
) -> tuple[Any, Any, ModelFiles, DetectedFormat]:
    """Load a model with its tokenizer, its files, and the format it was trained with, whatever the format asked for.

    Args:
        compute_in: the compute dtype of a quantized model, "float32", "bfloat16" or "float16"; None chooses.

    Raises:
        ModelError, SettingError: it cannot be found, trusted or loaded.
    """
    files, device, precision = resolve_model(name, config, paths)
    model, tokenizer, files, detected_format = load_checkpoint(files, precision, device, compute_in)
    if precision == AUTOMATIC:
        model = choose_faster_dtype(model)
    return model, tokenizer, files, detected_format


def resolve_model(name: str, config: LoadConfig, paths: Paths) -> tuple[ModelFiles, str, str]:
    """Find a model's files, and choose a device and a precision with which it fits into the memory.

    The precision of a small model on the processor, and of any GPT-2 whose weights can be packed, stays "automatic":
    which one it is is measured once it is loaded. Where there is no room for that, such weights are packed in bfloat16.
    "exact" stays until the files are there.
    """
    device = choose_device(config.device)
    files = find(name, paths)
    precision = config.precision
    if precision == AUTOMATIC and will_be_measured(files, device):
        precision = AUTOMATIC if has_room(files, AUTOMATIC, device) else "bfloat16"
    elif precision != EXACT and not (precision == AUTOMATIC and device == "cpu" and files.parameters < SMALL_MODEL):
        precision = resolve_precision(precision, device.partition(":")[0])
    check_memory(files, precision, device)
    return files, device, precision


def has_room(files: ModelFiles, precision: str, device: str) -> bool:
    """Whether a model fits into the free memory."""
    from chat_app.system.memory import measure_free_memory

    return estimate_memory(files, precision, device) <= measure_free_memory(device)


def check_memory(files: ModelFiles, precision: str, device: str) -> None:
    """Refuse a model that does not fit into the free memory.

    Raises:
        NotEnoughMemoryError: it needs more than is free.
    """
    from chat_app.system.memory import measure_free_memory

    needed, free = estimate_memory(files, precision, device), measure_free_memory(device)
    if needed > free:
        raise NotEnoughMemoryError(
            f"The model needs about {format_bytes(needed)} of memory, and {format_bytes(free)} are free.",
            needed,
            free,
            advice="Unload the model in use, choose 8-bit or 4-bit, or take a smaller model.",
        )


def load_checkpoint(
    files: ModelFiles,
    precision: str,
    device: str,
    compute_in: str | None = None,
    will_be_packed: Callable[[Any], bool] = lambda empty: False,
) -> tuple[Any, Any, ModelFiles, DetectedFormat]:
    """Load a model's weights and tokenizer, downloading the files where necessary, and detect its chat format.

    Args:
        will_be_packed: whether the weights of such a model, given on the device "meta", will be packed for the kernels.
            They are mapped from the file then; otherwise they are copied out of it.
    """
    files = download(files)
    if precision == EXACT:
        precision = find_exact_precision(files, device)
    empty = check_weights(files)
    keep = files.adapter is not None or not will_be_packed(empty)
    tokenizer = read_tokenizer_files(files.tokenizer_folder, files.gguf)
    model = _load_model(files, empty, precision, device, compute_in, keep)
    if files.adapter is not None:
        fit_embeddings(model, tokenizer)
        model = attach_adapter(model, files.adapter)
    return model, tokenizer, files, detect_format(files.tokenizer_folder, tokenizer, files.config)


def will_be_measured(files: ModelFiles, device: str) -> bool:
    """Whether the precision "automatic" of a model is 8 bits or bfloat16, by what 8-bit weights of it lose."""
    return files.adapter is None and not files.gguf and is_packed(files.config, "8-bit", device)


def find_exact_precision(files: ModelFiles, device: str) -> str:
    """The precision in which weights are exactly those of their file: bfloat16 if all of them are and this computer is
    fast with it, else float32, which has all numbers of both. A GPU keeps float16.
    """
    if files.folder is None or files.gguf or "quantization_config" in files.config:
        return "float32"
    stored = {dtype for file in weight_files(files.folder) for dtype in tensor_dtypes(file)}
    if stored == {"BF16"}:
        is_fast = device != "cpu" or is_packed(files.config, "bfloat16", device) or bfloat16_is_fast()
        return "bfloat16" if is_fast else "float32"
    return "float16" if stored == {"F16"} and device != "cpu" else "float32"


def choose_device(device: str) -> str:
    """The device for a setting: automatic, cpu, mps, cuda or cuda:1.

    Raises:
        SettingError: this computer does not have it, or it is no device.
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


def fit_embeddings(model: Any, tokenizer: ChatTokenizer) -> None:
    """Resize the token embeddings to the tokenizer; new rows are the mean of the old ones."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) <= rows:
        return
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            if layer is not None:
                layer.weight[rows:] = layer.weight[:rows].float().mean(0).to(layer.weight.dtype)


def _load_model(
    files: ModelFiles, empty: Any | None, precision: str, device: str, compute_in: str | None, keep: bool
) -> Any:
    """Load the weights. A missing or misshapen tensor is an error; it is never initialized at random."""
    if precision in ("8-bit", "4-bit"):
        return _from_pretrained(files, _quantized(files, precision, device, compute_in)).eval().requires_grad_(False)
    number = torch.float32 if precision == AUTOMATIC else getattr(torch, precision)
    if "quantization_config" in files.config:  # Quantized weights are not trained, and get to a device in one way only.
        return _from_pretrained(files, {"dtype": number, "device_map": {"": device}}).eval().requires_grad_(False)
    model = None
    if empty is not None and files.folder is not None:
        model = call_library(read_weights, empty, files.folder, number, device, keep=keep)
    if model is None:
        model = _from_pretrained(files, {"dtype": number})
    return call_library(model.to, device).eval().requires_grad_(True)


def _from_pretrained(files: ModelFiles, numbers: dict[str, Any]) -> Any:
    """Load a model by transformers; `numbers` are its settings for precision and device."""
    settings: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True, "output_loading_info": True}
    settings["ignore_mismatched_sizes"] = True  # transformers reports them, and they are refused below.
    if files.gguf:
        settings["gguf_file"] = files.gguf
    else:
        settings["use_safetensors"] = True
    build = transformers.AutoModelForCausalLM.from_pretrained
    with building():
        model, report = call_library(build, files.folder, **settings, **numbers)
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
        silence_products()
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


SMALL_MODEL = 50_000_000
_STEPS = 12


def choose_faster_dtype(model: Any) -> Any:
    """A small model in float32, as given, or in bfloat16 where that decodes clearly faster."""
    other = copy.deepcopy(model).to(torch.bfloat16)
    return other if _seconds(model) > 1.15 * _seconds(other) else model


@torch.inference_mode()
def _seconds(model: Any) -> float:
    """The shortest time of several forward passes of one token."""
    ids = torch.zeros((1, 1), dtype=torch.int64, device=model.device)
    best = float("inf")
    for _ in range(_STEPS):
        started = time.perf_counter()
        model(input_ids=ids, use_cache=True)
        best = min(best, time.perf_counter() - started)
    return best
