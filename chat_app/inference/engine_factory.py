"""From a loaded model to an engine that suits it and this machine: weight layout, processor threads, KV cache."""

from __future__ import annotations

from typing import Any

from chat_app.config.fields import AUTOMATIC
from chat_app.inference.engine import Engine
from chat_app.inference.gpt2.model_runner import GPT2ModelRunner
from chat_app.inference.gpt2.weights import WeightLayout, can_pack_model, is_plain_gpt2
from chat_app.inference.model_runner import ModelRunner, TransformersModelRunner
from chat_app.models.loading import SMALL_MODEL
from chat_app.models.resolver import ModelFiles, prefix_cache_tokens
from chat_app.models.weight_size import is_packed
from chat_app.system.cpu import count_processors
from chat_app.system.memory import measure_free_memory

MAX_RUNNING = 16


def choose_weight_layout(files: ModelFiles, precision: str, device: str) -> WeightLayout:
    """The layout that the engine will give a model's weights: "shared", unless it is a GPT-2 on the processor.

    The engine packs 8-bit weights itself, from ordinary ones, and not bitsandbytes. Where the precision is "automatic"
    they will be packed in one way or the other, most likely in 8 bits.
    """
    precision = "8-bit" if precision == AUTOMATIC else precision
    if files.gguf or not is_packed(files.config, precision, device):
        return "shared"
    return "8-bit" if precision == "8-bit" else "packed"


def start_engine(model: Any, files: ModelFiles, precision: str) -> tuple[Engine, str]:
    """An engine for a model, and the precision it computes in.

    The weights of a GPT-2 on the processor are moved into the layout that is read fastest; the model is empty then.

    Args:
        precision: as asked for, or as measured; "automatic" only where weights cannot be packed.

    Raises:
        ModelError: the model cannot chat.
    """
    device = str(model.device)
    runner, precision = _make_runner(model.eval(), files, precision)
    element_bytes = 4 if precision == "float32" else 2
    kept = prefix_cache_tokens(files, element_bytes)
    token_bytes = max(files.kv_elements_per_token * element_bytes, 1)
    free = measure_free_memory(device) // (2 * token_bytes)  # Half of the free memory is for KV caches.
    most = min(free, MAX_RUNNING * files.window + kept)
    threads = _thread_candidates(files) if device == "cpu" else ()
    engine = Engine(
        runner,
        files.window,
        max_running=MAX_RUNNING,
        kv_cache_tokens=most,
        prefix_cache_tokens=min(kept, most),
        threads=threads,
    )
    return engine, precision


def _make_runner(model: Any, files: ModelFiles, precision: str) -> tuple[ModelRunner, str]:
    if not is_plain_gpt2(model):
        return TransformersModelRunner(model, files.window), current_precision(model)
    layout = choose_weight_layout(files, precision, model.device.type)
    if layout == "shared" or not can_pack_model(model):
        return GPT2ModelRunner(model, files.window), current_precision(model)
    return GPT2ModelRunner(model, files.window, layout), "8-bit" if layout == "8-bit" else "bfloat16"


def current_precision(model: Any) -> str:
    """ "float32", "bfloat16", "float16", "8-bit" or "4-bit"."""
    if getattr(model, "is_loaded_in_8bit", False):
        return "8-bit"
    if getattr(model, "is_loaded_in_4bit", False):
        return "4-bit"
    return str(model.dtype).removeprefix("torch.")


def _thread_candidates(files: ModelFiles) -> tuple[int, ...]:
    """Numbers of processor threads for the ThreadTuner to choose from.

    A step of a small model takes less time than several threads need to synchronize.
    """
    if files.parameters < SMALL_MODEL:
        return (1,)
    most = count_processors()
    return (most, max(most // 2, 1), 1)
