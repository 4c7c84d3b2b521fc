"""A model in this process: loads it with its engine. The command line has it in its own process, the app in a worker's.

`models.resolver` finds a model, `models.loading` reads its weights.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from chat_app.config.fields import AUTOMATIC
from chat_app.config.loading import EXACT, LoadConfig
from chat_app.config.paths import Paths
from chat_app.errors import FormatError
from chat_app.inference.backend import ModelDescription, ReplyEvent, ReplyRequest
from chat_app.inference.engine import Engine
from chat_app.inference.engine_factory import choose_weight_layout, start_engine
from chat_app.inference.generation import generate_reply
from chat_app.inference.gpt2.weights import can_pack_model
from chat_app.inference.precision import MeasuredPrecision
from chat_app.kernels.packed_weights import get_kernel
from chat_app.models.loading import (
    find_exact_precision,
    fit_embeddings,
    load_checkpoint,
    resolve_model,
    will_be_measured,
)
from chat_app.models.resolver import ModelFiles, download
from chat_app.models.transformers_internals import accepts
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder
from chat_app.tokenization.format_detection import DetectedFormat


@dataclass(frozen=True)
class LoadedModel:
    """A model in this process with its engine: the local `ReplyBackend`.

    Attributes:
        name: by which it was asked for.
        model: of transformers; its weights may have been packed for the engine.
        tokenizer: of transformers, with the format's special tokens.
        encoder: conversations -> prompts.
        engine: prompts -> tokens.
        files: of the checkpoint.
        detected_format: its format and why.
        precision: "float32", "bfloat16", "float16", "8-bit" or "4-bit".
        device: "cpu", "cuda", "cuda:1", "mps".
        memory_bytes: the measured size of its tensors.
        precision_reason: why this precision is used, in a few words.
    """

    name: str
    model: Any
    tokenizer: Any
    encoder: Encoder
    engine: Engine
    files: ModelFiles
    detected_format: DetectedFormat
    precision: str
    device: str
    memory_bytes: int
    precision_reason: str = ""

    @property
    def description(self) -> ModelDescription:
        """What is known about the model."""
        how = self.detected_format
        return ModelDescription(
            self.files.name,
            self.files.kind,
            is_ready=True,
            window=self.engine.window,
            parameters=self.files.parameters,
            format=how.format,
            format_reason=how.because,
            is_format_certain=how.certain,
            precision=self.precision,
            device=self.device,
            memory_bytes=self.memory_bytes,
            precision_reason=self.precision_reason,
        )

    def connect(self) -> None:
        """Nothing to do: the model is in this process."""

    def stream(
        self, request: ReplyRequest, cancel_event: threading.Event | None = None
    ) -> Generator[ReplyEvent, None, None]:
        """The reply, as `ReplyBackend.stream` describes it."""
        return generate_reply(self.engine, self.encoder, request, cancel_event)

    def close(self) -> None:
        """End all replies under way and stop the engine."""
        self.engine.close()


_REASONS = {AUTOMATIC: "chosen for this computer", EXACT: "exact, as in its file"}  # Of what was not measured.


def load(name: str, config: LoadConfig, paths: Paths) -> LoadedModel:
    """Find a model, load it and start its engine.

    Where the precision is "automatic" and the weights can be packed, what 8-bit ones lose decides, which is measured
    when the model is loaded for the first time.

    Raises:
        ModelError, FormatError, SettingError: it cannot be found, trusted, loaded, or used in the format asked for.
    """
    files, device, precision = resolve_model(name, config, paths)
    files = download(files)
    if precision == EXACT:
        precision = find_exact_precision(files, device)
    measured = _find_measured_precision(files, precision, device, paths)
    choice = measured.known() if measured is not None else None
    precision = choice.precision if choice is not None else precision
    layout = choose_weight_layout(files, precision, device)
    if layout != "shared":
        get_kernel(layout == "8-bit")  # It is loaded or compiled while the files are read.
    stored = "float32" if layout == "8-bit" else precision
    will_be_packed = can_pack_model if layout != "shared" else lambda empty: False
    model, tokenizer, files, detected_format = load_checkpoint(files, stored, device, will_be_packed=will_be_packed)
    if config.format != AUTOMATIC:
        detected_format = DetectedFormat(config.format, True, "it was chosen by hand")
    chat_format = get_format(detected_format.format)
    if chat_format.has_types and not accepts(model, "token_type_ids"):
        raise FormatError(f"The format '{chat_format.name}' needs token types, which this model does not have.")
    encoder = Encoder(tokenizer, chat_format, files.window)
    _ = encoder.end_ids  # A chat template that cannot be used says so now.
    fit_embeddings(model, tokenizer)
    if measured is not None and choice is None and can_pack_model(model):
        choice = measured.measure(model, encoder)
        precision = choice.precision
    engine, precision = start_engine(model, files, precision)
    reason = choice.reason if choice is not None else _REASONS.get(config.precision, "")
    where, size = str(model.device), engine.memory_bytes
    return LoadedModel(name, model, tokenizer, encoder, engine, files, detected_format, precision, where, size, reason)


def _find_measured_precision(files: ModelFiles, precision: str, device: str, paths: Paths) -> MeasuredPrecision | None:
    """What is known of a model whose precision is to be measured; None for all others."""
    if precision != AUTOMATIC or files.folder is None or not will_be_measured(files, device):
        return None
    return MeasuredPrecision(files.folder, paths)
