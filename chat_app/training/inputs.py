"""What the training loop is given beside the model and the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chat_app.tokenization.encoder import Encoder, Example


@dataclass(frozen=True)
class TrainingInputs:
    """The data, the device and the callbacks of a training loop.

    Attributes:
        encoder: tokenizer and format, for saving.
        train_rows, valid_rows: what is learned, and what the model is tested on.
        device: "cpu", "cuda" or "mps"; precision: "float32", "bfloat16" or "float16" for computing.
        save_as: the precision of the model folder, None for the model's own.
        samples: called at each evaluation with the model; the replies to the fixed prompts.
        base: the folder of the model to which an addition is learned; None where every weight is learned.
        answers: called at each evaluation with the model: how many of the questions kept aside it answers right, and
            how many there are; None where there are none.
        keep_last: whether the last model is the result, whatever the evaluations say.
        readings: how often a conversation is read in one epoch over the rows, in one wording or another.
        card: called when a model is saved, with what is known of it; the text of its card.
    """

    encoder: Encoder
    train_rows: Sequence[Example]
    valid_rows: Sequence[Example]
    device: str
    precision: str
    save_as: str | None
    samples: Callable[[Any], list[dict[str, str]]] = field(default=lambda model: [])
    base: Path | None = None
    answers: Callable[[Any], tuple[int, int]] | None = None
    keep_last: bool = False
    readings: float = 1.0
    card: Callable[[dict[str, Any]], str] = field(default=lambda facts: "")
