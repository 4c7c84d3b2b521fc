"""The precision "automatic" of a GPT-2 on the processor: 8-bit weights if what they lose was measured and is little,
else bfloat16. The rule is the same for all processors. `models.device` has that of other models and devices.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chat_app.config.paths import Paths
from chat_app.conversation import Conversation
from chat_app.errors import ChatAppError
from chat_app.inference.gpt2.eight_bit_loss import MAX_TOKENS, measure_perplexity_rise
from chat_app.models.weight_digest import digest_weights
from chat_app.tokenization.encoder import Encoder, Example

MAX_RISE = 0.001  # Of the perplexity.
_VERSION = 1  # Of the measurement and of the text: another one makes old verdicts invalid.
_TEXT = (
    ("Hi! How are you today?", "I'm fine, thank you. I slept well and had a long breakfast. And you?"),
    (
        "Which train should I take to the coast?",
        "The one at half past nine is direct. Later you have to change in the middle of the way.",
        "And what does it cost?",
        "About twelve for one way, or twenty if you come back on the same day.",
    ),
    (
        "Explain to me why the sky is blue.",
        "Sunlight is a mixture of all colours. The air scatters short waves, which are blue, much more than long ones, "
        "so blue light reaches your eyes from everywhere.",
    ),
    (
        "Give me a recipe for a quick soup.",
        "Fry an onion in some oil, add two potatoes and a carrot in small pieces, and a litre of water with salt. "
        "After twenty minutes it is done.",
    ),
    (
        "My order number 4711 has not arrived.",
        "I'm sorry about that. I have asked the carrier, and you will hear from us.",
    ),
    ("Tell me a story.", "Once there was a lighthouse keeper who wrote a letter to every ship that passed at night."),
)


@dataclass(frozen=True)
class PrecisionChoice:
    """A precision and why it is used.

    Attributes:
        precision: "8-bit" or "bfloat16".
        reason: a few words for people.
    """

    precision: str
    reason: str


class MeasuredPrecision:
    """Chooses the precision of one model, and remembers what was measured for these weights.

    Args:
        folder: of the model.
        paths: where the measurements are kept.
    """

    def __init__(self, folder: Path, paths: Paths):
        self._file = paths.home / "cache" / "precision" / f"{digest_weights(folder)}-{_VERSION}.json"

    def known(self) -> PrecisionChoice | None:
        """The choice, if these weights were measured before."""
        try:
            rise = json.loads(self._file.read_text("utf-8"))["rise"]
        except (OSError, ValueError, TypeError, KeyError):  # It is not there, or damaged.
            return None
        return _choose(rise) if isinstance(rise, float) and math.isfinite(rise) else None

    def measure(self, model: Any, encoder: Encoder) -> PrecisionChoice:
        """Measure a model that is not packed yet, and choose.

        Args:
            model: for which `can_pack_model` holds.
            encoder: conversations -> tokens.
        """
        rise = measure_perplexity_rise(model, _encode_text(encoder), encoder.window)
        if math.isfinite(rise):  # Else the weights are damaged, of which packing or writing will tell.
            self._remember(rise)
        return _choose(rise)

    def _remember(self, rise: float) -> None:
        part = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"rise": rise, "tokens": MAX_TOKENS}), "utf-8")
            os.replace(part, self._file)
        except OSError:  # It is measured again the next time.
            part.unlink(missing_ok=True)


def _encode_text(encoder: Encoder) -> list[Example]:
    """The sample text in a model's own format; nothing where its window or its chat template does not take it."""
    try:
        return [row for turns in _TEXT for row in encoder.examples(Conversation.from_turns(turns), "all")]
    except ChatAppError:
        return []


def _choose(rise: float) -> PrecisionChoice:
    if rise <= MAX_RISE:
        return PrecisionChoice("8-bit", f"8-bit weights: measured, the loss is {100 * max(rise, 0):.2f} %")
    loss = f"{100 * rise:.2f} %" if math.isfinite(rise) else "no number"
    return PrecisionChoice("bfloat16", f"bfloat16 weights: measured, 8-bit ones would lose {loss}")
