"""Settings of sampling: each with its default, its limits and one sentence that explains it."""

from __future__ import annotations

from dataclasses import dataclass

from chat_app.config.fields import check, setting
from chat_app.errors import SettingError


@dataclass(frozen=True)
class SamplingConfig:
    """Settings of sampling a reply.

    Raises:
        SettingError: a value is outside its limits.
    """

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
