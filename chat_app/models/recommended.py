"""Recommended models on the Hub, and what each is good at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recommended:
    """A model on the Hub.

    Attributes:
        name: its name there.
        title: what people call it.
        size: bytes of its weights as published, about.
        parameters: how many weights it has.
        licence: the name of its licence.
        good_at: one sentence.
    """

    name: str
    title: str
    size: int
    parameters: int
    licence: str
    good_at: str


RECOMMENDED: tuple[Recommended, ...] = (
    Recommended(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "SmolLM2 135M Instruct",
        269_000_000,
        134_515_008,
        "Apache-2.0",
        "Follows instructions and answers questions in English straight away; comes without the Hub, too.",
    ),
    Recommended(
        "microsoft/DialoGPT-small",
        "DialoGPT small",
        351_000_000,
        124_439_808,
        "MIT",
        "Short, casual English small talk without any training.",
    ),
    Recommended(
        "microsoft/DialoGPT-medium",
        "DialoGPT medium",
        863_000_000,
        354_823_168,
        "MIT",
        "Small talk that keeps to the subject better than the small one.",
    ),
    Recommended(
        "devjwsong/gpt2-open-domain-dialogue",
        "GPT-2 open-domain dialogue",
        498_000_000,
        124_442_112,
        "not stated",
        "Everyday and empathetic conversations, learned from four public collections.",
    ),
    Recommended(
        "Locutusque/gpt2-conversational-or-qa",
        "GPT-2 conversational or Q&A",
        498_000_000,
        124_443_648,
        "OpenRAIL",
        "Short questions and answers with an optional system text.",
    ),
    Recommended(
        "distilgpt2",
        "DistilGPT-2",
        353_000_000,
        81_912_576,
        "Apache-2.0",
        "The fastest of the GPT-2 family to teach; it has not learned to chat yet.",
    ),
    Recommended(
        "gpt2",
        "GPT-2 small",
        548_000_000,
        124_439_808,
        "MIT",
        "A good start for your own conversations on a laptop or a 4 GB GPU; it has not learned to chat yet.",
    ),
    Recommended(
        "gpt2-medium",
        "GPT-2 medium",
        1_520_000_000,
        354_823_168,
        "MIT",
        "Better replies after training than the small one, at three times the cost; it has not learned to chat yet.",
    ),
    Recommended(
        "gpt2-large",
        "GPT-2 large",
        3_250_000_000,
        774_030_080,
        "MIT",
        "For a GPU with 12 GB or more to teach, or to chat with in 8 bits; it has not learned to chat yet.",
    ),
    Recommended(
        "gpt2-xl",
        "GPT-2 XL",
        6_430_000_000,
        1_557_611_200,
        "MIT",
        "The largest GPT-2, for big GPUs; it has not learned to chat yet.",
    ),
)
