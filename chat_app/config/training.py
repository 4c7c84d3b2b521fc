"""Settings of training: each with its default, its limits and one sentence that explains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from chat_app.config.fields import AUTOMATIC, check, setting
from chat_app.config.paths import STARTER
from chat_app.errors import SettingError
from chat_app.tokenization.chat_formats import FORMAT_NAMES

METHODS = (AUTOMATIC, "full", "lora", "lora-8bit", "lora-4bit")


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run: method, optimizer, gradient accumulation, early stopping (`patience`), checkpoints.

    Raises:
        SettingError: a value is outside its limits.
    """

    model: str = setting(
        STARTER,
        "The model to start from: starter, a run, its checkpoint (RUN@STEP), a folder, or a name on the Hub.",
        label="Start from",
        advanced=False,
    )
    epochs: float = setting(
        10.0,
        "How many times the model reads all conversations, very small sets more often; it stops earlier when it no "
        "longer gets better.",
        low=0.01,
        high=1000,
        step=1,
        label="Epochs",
        advanced=False,
    )
    learning_rate: float = setting(
        0.0,
        "How big each step is: too small learns slowly, too big forgets what the model knew; 0 suits it to the model.",
        low=0,
        high=0.1,
        label="Learning rate",
    )
    rate_factor: float = setting(
        1.0,
        "Multiplies the learning rate: below 1 learns more carefully.",
        low=0.01,
        high=10,
        step=0.05,
        label="Rate factor",
    )
    max_steps: int = setting(
        0, "Stop after this many steps; 0 means after the epochs.", low=0, high=10**9, label="Most steps"
    )
    batch_size: int = setting(
        8,
        "How many conversations are learned in one step, by all processes together.",
        low=1,
        high=4096,
        step=1,
        label="Batch size",
    )
    accumulation: int = setting(
        1,
        "Add up this many batches for one step: the effect of a bigger batch in the same memory.",
        low=1,
        high=1024,
        label="Batches a step",
    )
    learn: str = setting(
        "replies",
        "Learn only the replies of the assistant, or everything that is said.",
        choices=("replies", "all"),
        label="What is learned",
    )
    format: str = setting(
        AUTOMATIC,
        "How conversations are laid out; automatic keeps the model's own and takes roles for a plain GPT-2.",
        choices=(AUTOMATIC, *FORMAT_NAMES),
        label="Format",
    )
    window: int = setting(
        0,
        "The most tokens a row may have; 0 means as many as the model takes, up to 1024.",
        low=0,
        high=131072,
        label="Window",
    )
    max_turns: int = setting(
        0, "Show at most this many turns in a row, the reply included; 0 means all.", low=0, label="Most turns shown"
    )
    overlap: float = setting(
        0.5,
        "Where a conversation is longer than the window: the share of each further row that repeats earlier turns.",
        low=0,
        high=1,
        step=0.05,
        label="Overlap of long conversations",
    )
    valid_share: float = setting(
        0.1,
        "The share of conversations that is kept aside to see how well the model does on what it did not read; 0 keeps "
        "none, so all is learned and nothing is tested. With 0.1 a small set keeps only a few wordings aside.",
        low=0,
        high=0.5,
        step=0.01,
        label="Share for validation",
    )
    wordings: str = setting(
        AUTOMATIC,
        "Teach each question in several wordings: with words left out or swapped, slips of the keyboard, paraphrases, "
        "on the user's side only; automatic does it for small sets of questions and answers.",
        choices=(AUTOMATIC, "on", "off"),
        label="Other wordings",
    )
    method: str = setting(
        AUTOMATIC,
        "What is learned: every weight (full), or a small addition to weights that stay, which may lie in 8 or 4 bits "
        "(lora, lora-8bit, lora-4bit); automatic takes the best that fits into the memory.",
        choices=METHODS,
        label="Method",
    )
    lora_rank: int = setting(
        16, "LoRA: how much the addition can express.", low=1, high=1024, step=1, label="LoRA rank"
    )
    lora_alpha: float = setting(
        32.0, "LoRA: the addition counts this number divided by the rank.", low=0.01, high=4096, label="LoRA alpha"
    )
    lora_dropout: float = setting(
        0.0, "LoRA: the share of the addition's input left out at random.", low=0, high=0.9, label="LoRA dropout"
    )
    gradient_checkpointing: str = setting(
        AUTOMATIC,
        "Compute parts of a step twice instead of remembering them: much less memory, a third more time.",
        choices=(AUTOMATIC, "on", "off"),
        label="Recompute",
    )
    rehearse: str = setting(
        AUTOMATIC,
        "Try some steps first, to measure memory and time and to fit the batches; automatic: for all but short runs.",
        choices=(AUTOMATIC, "on", "off"),
        label="Rehearse",
    )
    optimizer: str = setting(
        "adamw", "How steps are computed.", choices=("adamw", "adamw-8bit", "muon"), label="Optimiser"
    )
    weight_decay: float = setting(0.01, "Pulls the weights gently towards zero.", low=0, high=1, label="Weight decay")
    warmup: float = setting(
        0.06, "The share of all steps in which the learning rate rises.", low=0, high=1, step=0.01, label="Warm-up"
    )
    schedule: str = setting(
        "cosine",
        "How the learning rate falls afterwards.",
        choices=("cosine", "linear", "constant", "polynomial"),
        label="Schedule",
    )
    clip: float = setting(
        1.0, "The longest a gradient may be; longer ones are shortened.", low=0.001, high=1000, label="Longest gradient"
    )
    dropout: float = setting(
        -1.0,
        "The share of values left out at random while learning; -1 keeps the model's own.",
        low=-1,
        high=0.9,
        label="Dropout",
    )
    precision: str = setting(
        AUTOMATIC,
        "How numbers are computed while learning: automatic uses bfloat16 where it is fast.",
        choices=(AUTOMATIC, "float32", "bfloat16", "float16"),
        label="Compute in",
    )
    save_as: str = setting(
        AUTOMATIC,
        "How the numbers of the result are stored: automatic keeps those of the model it started from.",
        choices=(AUTOMATIC, "float32", "bfloat16", "float16"),
        label="Store as",
    )
    device: str = setting(AUTOMATIC, "Where to train: automatic takes the GPU if there is one.", label="Device")
    patience: int = setting(
        3,
        "Stop after this many evaluations in a row without getting better; 0 never stops early.",
        low=0,
        high=1000,
        step=1,
        label="Patience",
        advanced=False,
    )
    evaluate_every: int = setting(
        0, "Steps between two evaluations; 0 means once an epoch.", low=0, label="Steps between evaluations"
    )
    save_every: int = setting(
        0, "Steps between two checkpoints; 0 means at each evaluation.", low=0, label="Steps between checkpoints"
    )
    log_every: int = setting(
        0, "Steps between two points of the plot; 0 chooses about 300 points.", low=0, label="Steps between points"
    )
    keep_checkpoints: int = setting(
        2, "How many checkpoints are kept for resuming.", low=2, high=100, label="Checkpoints kept"
    )
    threads: int = setting(0, "Processor threads to use; 0 means all.", low=0, high=1024, label="Processor threads")
    seed: int = setting(
        0, "The same seed gives the same result on the same machine.", low=0, high=2**31 - 1, label="Seed"
    )

    def __post_init__(self) -> None:
        check(self)
        highest = next(one.metadata["high"] for one in fields(self) if one.name == "learning_rate")
        if self.learning_rate * self.rate_factor > highest:
            raise SettingError(
                "rate_factor",
                f"With it the learning rate of {self.learning_rate:g} becomes "
                f"{self.learning_rate * self.rate_factor:g}, and the highest is {highest:g}.",
                advice="Lower one of the two.",
            )


CAREFULNESS: Mapping[str, Mapping[str, Any]] = {
    "Careful": {"rate_factor": 0.4, "patience": 2},
    "Balanced": {},
    "Thorough": {"patience": 8},
}
"""Presets by name: the fields of TrainConfig that each of them sets."""
