"""From a loaded model to an engine that suits it and this machine: the layout of its weights, threads, memory."""

from __future__ import annotations

from typing import Any

from chat_app.config.fields import AUTOMATIC
from chat_app.inference.engine import Engine
from chat_app.inference.gpt2.model_runner import GPT2Forward
from chat_app.inference.gpt2.weights import WeightLayout, can_pack_model, is_plain_gpt2
from chat_app.inference.model_runner import Forward, TransformersForward
from chat_app.models.loading import SMALL_MODEL
from chat_app.models.resolver import ModelFiles, kept_tokens
from chat_app.models.weight_size import is_packed
from chat_app.system.cpu import processors
from chat_app.system.memory import free_memory

MOST_ACTIVE = 16


def choose_weight_layout(files: ModelFiles, precision: str, device: str) -> WeightLayout:
    """The layout that the engine will give a model's weights: "shared", unless it is a GPT-2 on the processor.

    The engine packs 8-bit weights itself, from ordinary ones, and not bitsandbytes. Where the precision is "automatic"
    packed weights are bfloat16: half the bytes a token.
    """
    if files.gguf or not is_packed(files.config, "bfloat16" if precision == AUTOMATIC else precision, device):
        return "shared"
    return "8-bit" if precision == "8-bit" else "packed"


def start_engine(model: Any, files: ModelFiles, precision: str) -> tuple[Engine, str]:
    """An engine for a model, and the precision it computes in.

    The weights of a GPT-2 on the processor are moved into the layout that is read fastest; the model is empty then.

    Args:
        precision: what was asked for; "automatic": bfloat16 where this machine has a fast way to write with it.

    Raises:
        ModelError: the model cannot chat.
    """
    device = str(model.device)
    forward, precision = _forward(model.eval(), files, precision)
    number = 4 if precision == "float32" else 2
    kept = kept_tokens(files, number)
    free = free_memory(device) // max(2 * files.cache_numbers * number, 1)  # Half of what is free is for chats.
    most = min(free, MOST_ACTIVE * files.window + kept)
    threads = _threads(files) if device == "cpu" else ()
    engine = Engine(
        forward,
        files.window,
        most_active=MOST_ACTIVE,
        memory_tokens=most,
        kept_tokens=min(kept, most),
        threads=threads,
    )
    return engine, precision


def _forward(model: Any, files: ModelFiles, precision: str) -> tuple[Forward, str]:
    if not is_plain_gpt2(model):
        return TransformersForward(model), precision_of(model)
    layout = choose_weight_layout(files, precision, model.device.type)
    if layout == "shared" or not can_pack_model(model):
        return GPT2Forward(model, files.window), precision_of(model)
    return GPT2Forward(model, files.window, layout), "8-bit" if layout == "8-bit" else "bfloat16"


def precision_of(model: Any) -> str:
    """ "float32", "bfloat16", "float16", "8-bit" or "4-bit"."""
    if getattr(model, "is_loaded_in_8bit", False):
        return "8-bit"
    if getattr(model, "is_loaded_in_4bit", False):
        return "4-bit"
    return str(model.dtype).removeprefix("torch.")


def _threads(files: ModelFiles) -> tuple[int, ...]:
    """Numbers of processor threads to try for a step.

    A step of a small model is over before several threads have met.
    """
    if files.parameters < SMALL_MODEL:
        return (1,)
    most = processors()
    return (most, max(most // 2, 1), 1)
