"""Memory estimate: the peak memory of a training, and the training plans that fit what is free.

The formula counts what PyTorch keeps. In bytes, with P learned numbers of the model, T positions of a batch (rows times
length), h its width, i the width inside a layer's second half, V its vocabulary, n the bytes of a number in computing
(2 in bfloat16 and float16, 4 in float32) and r the bytes of a number on the way through the layers (4; 2 where the
weights themselves are of 2 bytes):

- weights: 4 P (full), n P (lora), or for all but the embedding 1.01 (lora-8bit) and 0.57 (lora-4bit), and n V h;
- gradients 4 and moments 8 for each number that is learned (adamw; 2.1 with adamw-8bit, 6 with muon). LoRA learns
  rank (8 h + 2 i) in each layer, and the rows of new tokens;
- full in 2 bytes: a copy of the weights in 2 bytes while a batch is computed;
- for each layer T (2 r h + 6 n h + 2 n i) is remembered for the way back (Korthikanti et al. 2022 count the same
  tensors), a byte more for each of the two dropouts, and the mask; with recomputing r T h, and one layer in full;
- 12 bytes for each logit: learned tokens times V, at most 512 tokens at a time with recomputing;
- tables: the gradient of the embedding arises as a whole. With new tokens LoRA makes copies of the table.

It predicts the sum at the worst moment: during the loss, at the end of the way back, or in the optimiser.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import Any

from chat_app.config.fields import AUTOMATIC
from chat_app.config.training import METHODS, TrainConfig
from chat_app.models.resolver import ModelFiles
from chat_app.models.validation import size_of
from chat_app.tokenization.encoder import Example, example_lengths
from chat_app.training.collator import fill_rows
from chat_app.training.loss import PIECE_TOKENS

_QUANTIZED = {"lora-8bit": 1.01, "lora-4bit": 0.57}
_MOMENTS = {"adamw": 8.0, "adamw-8bit": 2.1, "muon": 6.0}
_WORKSPACE = 96 * 2**20  # Of matrix libraries, and what an allocator cannot fill.
_LOGIT_BYTES = 12
_SHARE = {"cpu": 0.8}  # Of what is free; the rest of a GPU's memory is rarely claimed meanwhile.
_GPU_SHARE = 0.92


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model on which its memory depends. `new_tokens`: rows that the format adds to its vocabulary."""

    parameters: int
    layers: int
    width: int
    inner: int
    heads: int
    vocabulary: int
    window: int = 1024
    new_tokens: int = 0
    dropout: float = 0.1
    is_gated: bool = False


@dataclass(frozen=True)
class BatchShape:
    """The largest batch that is computed at once: so many rows of this length, with so many learned tokens in all."""

    rows: int
    length: int
    learned: int


@dataclass(frozen=True)
class Prediction:
    """Bytes at the worst moment, and what they are made of."""

    weights: int
    learning: int
    activations: int
    output: int
    peak: int


@dataclass(frozen=True)
class Plan:
    """A training plan, and the memory that it is predicted to need. `fits`: whether that is free."""

    method: str
    batch_size: int
    accumulation: int
    checkpointing: bool
    optimizer: str
    predicted_bytes: int
    free_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the prediction is below what is free."""
        return self.predicted_bytes <= self.free_bytes

    def apply_to(self, config: TrainConfig) -> TrainConfig:
        """The settings with method, batch size, accumulation, recomputing and optimizer decided."""
        return replace(
            config,
            method=self.method,
            batch_size=self.batch_size,
            accumulation=self.accumulation,
            gradient_checkpointing="on" if self.checkpointing else "off",
            optimizer=self.optimizer,
        )


def get_model_shape(files: ModelFiles, new_tokens: int = 0, dropout: float = -1.0) -> ModelShape:
    """The sizes in a model's config.json; a dropout of -1 is the model's own."""
    config = files.config
    own = max([float(config.get(name) or 0) for name in ("resid_pdrop", "attn_pdrop", "attention_dropout")])
    return ModelShape(
        parameters=files.parameters,
        layers=files.layers,
        width=files.width,
        inner=size_of(config, "n_inner", "intermediate_size") or 4 * files.width,
        heads=files.heads,
        vocabulary=files.vocabulary + new_tokens,
        window=files.window,
        new_tokens=new_tokens,
        dropout=own if dropout < 0 else dropout,
        is_gated=config.get("hidden_act") == "silu",
    )


def find_heaviest_batch(rows: Sequence[Example], count: int) -> BatchShape:
    """The largest batch of `count` rows that can come."""
    lengths = example_lengths(rows)
    longest = [rows[index] for index in heapq.nlargest(count, range(len(rows)), key=lengths.__getitem__)]
    packed = fill_rows([len(row.ids) for row in longest])
    length = -(-len(longest[0].ids) // 8) * 8
    return BatchShape(len(packed), length, sum(row.loss_tokens for row in longest))


def predict_memory(
    shape: ModelShape,
    load: BatchShape,
    method: str,
    *,
    precision: str = "bfloat16",
    optimizer: str = "adamw",
    checkpointing: bool = False,
    accumulation: int = 1,
    rank: int = 16,
    device: str = "cuda",
) -> Prediction:
    """The peak in bytes; the formula stands at the top of this file."""
    number = 4 if precision == "float32" else 2
    table = shape.vocabulary * shape.width
    total = shape.parameters + shape.new_tokens * shape.width
    is_full = method == "full"
    weights = _weight_bytes(total, table, method, number)
    learned = total if is_full else _lora_numbers(shape, rank)
    moments = int(learned * _MOMENTS[optimizer])
    gradients = 4 * learned
    copies = 2 * total if is_full and number == 2 else 0
    through = number if not is_full else 4
    activations = _activation_bytes(shape, load, number, through, checkpointing, device)
    if not is_full:
        activations += 8 * rank * number * load.rows * load.length * (1 if checkpointing else shape.layers)
    at_once = min(load.learned, PIECE_TOKENS) if checkpointing else load.learned
    output = _LOGIT_BYTES * at_once * shape.vocabulary
    merged = table * number if shape.new_tokens and not is_full else 0  # The table with its new rows.
    way_back = table * 4 if is_full else 3 * merged
    peak = max(
        (gradients if accumulation > 1 else 0) + copies + activations + merged + max(output, way_back),
        gradients + way_back,
    )
    whole = int(1.05 * (weights + moments + peak)) + _WORKSPACE
    return Prediction(weights, gradients + moments, activations + merged + copies, output, whole)


def _weight_bytes(total: int, table: int, method: str, number: int) -> int:
    if method in _QUANTIZED:
        return int(_QUANTIZED[method] * (total - table)) + number * table
    return total * (4 if method == "full" else number)


def _lora_numbers(shape: ModelShape, rank: int) -> int:
    """Inputs and outputs of a layer's matrices, times the rank; and rows for new tokens."""
    inner = (3 if shape.is_gated else 2) * (shape.width + shape.inner)
    return shape.layers * rank * (6 * shape.width + inner) + shape.new_tokens * shape.width


def _activation_bytes(
    shape: ModelShape, load: BatchShape, number: int, through: int, checkpointing: bool, device: str
) -> int:
    positions = load.rows * load.length
    inner = (4 if shape.is_gated else 2) * number * shape.inner
    layer = positions * (2 * through * shape.width + 6 * number * shape.width + inner)
    layer += load.rows * load.length**2 * number  # The mask.
    if shape.dropout:
        layer += 2 * positions * shape.width * (number if device == "cpu" else 1)
        if device == "cpu":  # Its attention keeps the matrix of weights as soon as some of them are dropped.
            layer += 13 * shape.heads * load.rows * load.length**2
    around = 12 * positions * shape.width
    if checkpointing:
        return shape.layers * positions * shape.width * through + layer + around
    return shape.layers * layer + around


def list_plans(
    shape: ModelShape,
    rows: Sequence[Example],
    config: TrainConfig,
    *,
    precision: str,
    device: str,
    free: int,
    allowed: Sequence[str] = METHODS[1:],
    processes: int = 1,
) -> list[Plan]:
    """List training plans that follow `config`, the best first: from all as asked to the one that needs least memory.

    The number of conversations in a step never changes; they are only computed in smaller parts.

    Args:
        free: bytes that are free on the device before the model is there.
        allowed: the methods that this model can take.
        processes: how many share a batch; each has a device of its own.
    """
    share = _SHARE.get(device, _GPU_SHARE)
    made = []
    loads: dict[int, BatchShape] = {}
    for method, optimizer, checkpointing, batch in _ladder(config, device, allowed):
        if batch % processes and config.batch_size % processes == 0:
            continue
        accumulation = config.accumulation * config.batch_size // batch
        count = min(-(-batch // processes), len(rows))
        if count not in loads:
            loads[count] = find_heaviest_batch(rows, count)
        predicted = predict_memory(
            shape,
            loads[count],
            method,
            precision=precision,
            optimizer=optimizer,
            checkpointing=checkpointing,
            accumulation=accumulation,
            rank=config.lora_rank,
            device=device,
        )
        made.append(Plan(method, batch, accumulation, checkpointing, optimizer, predicted.peak, int(free * share)))
    return made


def index_of_first_fit(made: Sequence[Plan]) -> int:
    """The index of the first plan that fits, else of the one that needs least."""
    fitting = [place for place, plan in enumerate(made) if plan.fits]
    return fitting[0] if fitting else min(range(len(made)), key=lambda place: made[place].predicted_bytes)


def _ladder(config: TrainConfig, device: str, allowed: Sequence[str]) -> Iterator[tuple[str, str, bool, int]]:
    """Method, optimiser, recomputing and batch, the best first."""
    chosen = [config.method] if config.method != AUTOMATIC else [one for one in METHODS[1:] if one in allowed]
    divisors = [size for size in range(config.batch_size, 0, -1) if config.batch_size % size == 0]
    for method in chosen:
        optimizers = [config.optimizer]
        if config.method == AUTOMATIC and config.optimizer == "adamw" and device == "cuda" and method == "full":
            optimizers.append("adamw-8bit")
        for optimizer in optimizers:
            for size in divisors:
                if config.gradient_checkpointing == "off" or (
                    config.gradient_checkpointing == AUTOMATIC and 4 * size >= config.batch_size
                ):
                    yield method, optimizer, False, size
            if config.gradient_checkpointing != "off":
                for size in divisors:
                    yield method, optimizer, True, size


def list_methods(files: ModelFiles, device: str) -> list[str]:
    """The methods that are possible for a model on this computer."""
    allowed = ["full"]
    if files.gguf is None and _is_there("peft"):
        allowed.append("lora")
        if device != "mps" and _is_there("bitsandbytes"):
            allowed.append("lora-8bit")
            if files.width % 64 == 0:
                allowed.append("lora-4bit")
    return allowed


def _is_there(library: str) -> bool:
    """Whether a library is installed, without importing it: a lazy module would be loaded by the question."""
    return sys.modules.get(library) is not None or find_spec(library) is not None


def plan_facts(plan: Plan) -> dict[str, Any]:
    """A plan for JSON."""
    return asdict(plan)
