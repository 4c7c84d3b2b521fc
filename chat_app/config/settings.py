"""Every setting, its default, its limits and one sentence that explains it. Flags and page controls are made from
these.

Knows no files but the home folder, and nothing of torch or gradio.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from chat_app.config.fields import check, setting
from chat_app.errors import SettingError
from chat_app.system.disk_cache import Cache
from chat_app.tokenization.chat_formats import FORMAT_NAMES

AUTOMATIC = "automatic"
STARTER = "starter"


@dataclass(frozen=True)
class SamplingConfig:
    """How replies are drawn."""

    temperature: float = setting(
        0.7,
        "How daring the replies are: 0 always takes the likeliest word, higher values surprise more.",
        low=0,
        high=2,
        step=0.05,
        label="Temperature",
        advanced=False,
    )
    top_p: float = setting(
        0.9,
        "Draw only from the likeliest words that together have this probability; 1 leaves all in.",
        low=0,
        high=1,
        step=0.01,
        label="Top-p",
        advanced=False,
    )
    top_k: int = setting(
        50,
        "Draw only from this many of the likeliest words; 0 leaves all in.",
        low=0,
        high=1000,
        step=1,
        label="Top-k",
    )
    min_p: float = setting(
        0.0,
        "Leave out words less likely than this share of the likeliest one; 0 leaves all in.",
        low=0,
        high=1,
        step=0.01,
        label="Min-p",
    )
    repetition_penalty: float = setting(
        1.1,
        "Above 1, words that stand in the conversation already become less likely.",
        low=1,
        high=2,
        step=0.01,
        label="Repetition penalty",
    )
    presence_penalty: float = setting(
        0.0, "Above 0, words that the reply has already become less likely.", low=-2, high=2, step=0.1
    )
    frequency_penalty: float = setting(
        0.0, "The same, more the oftener the reply has them.", low=-2, high=2, step=0.1, label="Frequency penalty"
    )
    no_repeat_ngram: int = setting(
        0, "No run of so many tokens occurs twice in a reply; 0: off.", low=0, high=20, step=1, label="No-repeat n-gram"
    )
    max_new_tokens: int = setting(
        128,
        "The longest a reply may become, in tokens (a token is about three quarters of a word).",
        low=1,
        high=4096,
        step=1,
        label="Longest reply",
        advanced=False,
    )
    remembered_turns: int = setting(
        0,
        "How many of the latest turns the model sees; 0 means as many as fit.",
        low=0,
        high=1000,
        step=1,
        label="Turns remembered",
    )
    seed: int = setting(
        -1,
        "The same number gives the same reply to the same conversation; -1 draws anew each time.",
        low=-1,
        high=2**31 - 1,
        step=1,
        label="Seed",
    )
    stop: tuple[str, ...] = setting((), "A reply ends before any of these texts; one a line.", label="Stop texts")

    def __post_init__(self) -> None:
        check(self)
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if len(stop) > 16 or any(not isinstance(text, str) or not 0 < len(text) <= 200 for text in stop):
            raise SettingError("stop", "Stop texts are up to 16 texts of 1 to 200 characters.")
        object.__setattr__(self, "stop", stop)


METHODS = (AUTOMATIC, "full", "lora", "lora-8bit", "lora-4bit")
PRECISIONS = (AUTOMATIC, "float32", "bfloat16", "float16", "8-bit", "4-bit")


@dataclass(frozen=True)
class LoadConfig:
    """How a model is brought into memory."""

    precision: str = setting(
        AUTOMATIC,
        "How numbers are stored: automatic is exact; 8-bit and 4-bit save memory, and 8-bit is faster on a processor.",
        choices=PRECISIONS,
        label="Load as",
    )
    device: str = setting(AUTOMATIC, "Where the model runs: automatic takes the GPU if there is one.", label="Device")
    format: str = setting(
        AUTOMATIC,
        "How conversations are laid out for this model: automatic recognises it.",
        choices=(AUTOMATIC, *FORMAT_NAMES),
        label="Format",
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class TrainConfig:
    """How a model is taught."""

    model: str = setting(
        STARTER,
        "The model to start from: starter, a run, its checkpoint (RUN@STEP), a folder, or a name on the Hub.",
        label="Start from",
        advanced=False,
    )
    epochs: float = setting(
        10.0,
        "How many times the model reads all conversations; it stops earlier when it no longer gets better.",
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
        8, "How many conversations are learned in one step.", low=1, high=4096, step=1, label="Batch size"
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
        "The share of conversations that is kept aside to see how well the model does on what it did not read.",
        low=0,
        high=0.5,
        step=0.01,
        label="Share for validation",
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


CAREFULNESS: Mapping[str, Mapping[str, Any]] = {
    "Careful": {"rate_factor": 0.4, "patience": 2},
    "Balanced": {},
    "Thorough": {"patience": 8},
}
"""How careful to be, in one word: each choice stands for a few fields of TrainConfig."""

Config = TypeVar("Config")


def from_mapping(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """A settings object from names and values, such as a YAML file's.

    Raises:
        SettingError: a name that does not exist, or a value outside its limits.
    """
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise SettingError(name, "There is no such setting.", advice=f"Known are {', '.join(sorted(names))}.")
    return kind(**values)


def to_mapping(settings: SamplingConfig | LoadConfig | TrainConfig) -> dict[str, Any]:
    """Names and values, ready for JSON."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}


CACHE_BYTES = 20 * 10**9


@dataclass(frozen=True)
class Paths:
    """Where things lie on this computer.

    Attributes:
        home: the folder of everything that this person makes.
        keep_seconds: how long what can be made again is kept after its last use.
    """

    home: Path
    keep_seconds: float = 30 * 86_400.0

    @classmethod
    def default(cls) -> Paths:
        """CHAT_APP_HOME, else the storage of a Space, else the user's data folder."""
        chosen = os.environ.get("CHAT_APP_HOME")
        if chosen:
            return cls(Path(chosen).expanduser().resolve())
        storage = Path("/data")
        if os.environ.get("SPACE_ID") and storage.is_dir() and os.access(storage, os.W_OK):
            return cls(storage / "chat_app")
        return cls(Path(platformdirs.user_data_dir("chat_app", appauthor=False)))

    @property
    def runs(self) -> Path:
        """One folder a training run."""
        return self.home / "runs"

    def cache_of(self, kind: str) -> Cache:
        """What can be made again: "material" (conversations as they were read) or "rows" (laid out for a model)."""
        return Cache(self.home / "cache" / kind, CACHE_BYTES, self.keep_seconds)

    @property
    def assets(self) -> Path:
        """What comes with the product."""
        return Path(__file__).resolve().parents[2] / "assets"

    @property
    def starter(self) -> Path:
        """The model that comes with the product."""
        return self.assets / "starter"

    @property
    def samples(self) -> Path:
        """Conversations that come with the product."""
        return self.assets.parent / "sample_data"
