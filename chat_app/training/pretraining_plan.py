"""A model from nothing, guided: how large it and its vocabulary may be for so much text, and a run that begins so.

The rule. A token is about four characters (GPT-2's, on English). A text that is read four times teaches nearly as much
as one of four times the length (Muennighoff et al. 2023), and a model is best taught with twenty tokens a parameter
(Hoffmann et al. 2022); so the layers should have about a twentieth as many parameters as the text has characters. Of
the sizes that there are the nearest is taken, by ratio. A token should occur about a hundred times to be learned, so
the vocabulary has one for every four hundred characters, between 512 and what suits the size.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.data.dataset import ConversationDataset
from chat_app.data.source import DataSource, load_source
from chat_app.data.text_corpus import pieces
from chat_app.errors import DataError, SettingError
from chat_app.runs.run import Run, new_id
from chat_app.system.progress import Progress, ProgressCallback, ignore_progress
from chat_app.training.pipeline import prepare_run
from chat_app.training.pretraining import NOTHING, SIZES, learn_tokenizer, start_with_new_model

CHARACTERS_A_PARAMETER = 20
CHARACTERS_A_TOKEN = 400
FEWEST_TOKENS = 512
FEWEST_CHARACTERS = 2_000
MOST_READ = 100_000_000  # Characters that a tokenizer is learned from; more change next to nothing.
_MOST_TOKENS: Mapping[str, int] = {"nano": 4_096, "mini": 8_192, "compact": 16_384, "small": 32_768, "medium": 32_768}


@dataclass(frozen=True, slots=True)
class Proposal:
    """A model for a text.

    Attributes:
        characters: of the text.
        size: a name of pretraining.SIZES.
        vocabulary: how many tokens, at most.
    """

    characters: int
    size: str
    vocabulary: int

    @property
    def parameters(self) -> int:
        """How many numbers the model will have, about."""
        return layer_parameters(self.size) + self.vocabulary * SIZES[self.size].width


def layer_parameters(size: str) -> int:
    """The numbers in the layers of a size: twelve times the square of the width in each."""
    return 12 * SIZES[size].layers * SIZES[size].width ** 2


def proposed(characters: int, size: str = "") -> Proposal:
    """The model that suits so much text, by the rule above.

    Args:
        size: instead of the one that the rule gives.

    Raises:
        DataError: there is too little to learn a language from.
    """
    if characters < FEWEST_CHARACTERS:
        raise DataError(
            f"These are {characters:,} characters: too few to learn a language from.",
            advice=f"Bring {FEWEST_CHARACTERS:,} or, far better, millions; or teach a model that knows the language.",
        )
    wanted = characters / CHARACTERS_A_PARAMETER
    size = size or min(SIZES, key=lambda name: abs(math.log(layer_parameters(name) / wanted)))
    vocabulary = characters // CHARACTERS_A_TOKEN // 64 * 64
    return Proposal(characters, size, min(max(vocabulary, FEWEST_TOKENS), _MOST_TOKENS[size]))


def prepare_from_nothing(
    config: TrainConfig,
    wanted: DataSource,
    texts: Sequence[Path],
    paths: Paths,
    *,
    size: str = "",
    about: Mapping[str, Any] | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Run:
    """A run that begins with a new tokenizer and a model that knows nothing, both made for what it will learn.

    Args:
        wanted: conversations; it may be empty. texts: files of running text.
        size: as for `proposed`.
        progress: is given a sentence about how far it is.

    Raises:
        DataError: there is too little, or it cannot be read.
    """
    material = load_source(wanted, paths, need_reply=False) if wanted.files or wanted.hub else None
    characters = 0
    for text in _all_texts(material, texts):
        characters += len(text)
        progress(Progress(f"Counting: {characters / 1e6:.1f} million characters so far."))
    plan = proposed(characters, size)
    folder = paths.runs / new_id(paths.runs, f"new-{plan.size}")
    words = folder.with_name(f".{folder.name}.words")
    try:
        progress(Progress(f"Learning {plan.vocabulary:,} pieces of words."))
        learn_tokenizer(_some(_all_texts(material, texts), progress), plan.vocabulary, words)
        progress(Progress("Making a model that knows nothing yet."))
        names = [*wanted.given, *(path.name for path in texts)]
        facts = {**(about or {}), "files": names, "from_nothing": plan.size, "vocabulary": plan.vocabulary}
        run = prepare_run(
            config,
            material if material is not None else NOTHING,
            paths,
            texts=chain.from_iterable(map(pieces, texts)) if texts else None,
            folder=folder,
            about=facts,
            progress=lambda now: progress(Progress(f"Writing: {now.done:,} so far.")),
        )
        start_with_new_model(run, words, plan.size, config.seed)
        return run
    finally:
        shutil.rmtree(words, ignore_errors=True)


def _all_texts(material: ConversationDataset | None, texts: Sequence[Path]) -> Iterator[str]:
    if material is not None:
        for conversation in material.conversations():
            yield from (message.text for message in conversation.messages)
    yield from chain.from_iterable(map(pieces, texts))


def _some(texts: Iterator[str], progress: ProgressCallback) -> Iterator[str]:
    """As much of the texts as a tokenizer needs."""
    read = 0
    for text in texts:
        read += len(text)
        progress(Progress(f"Learning the pieces of words: {read / 1e6:.1f} million characters read."))
        yield text
        if read >= MOST_READ:
            return


def size_named(size: object) -> str:
    """A size from a page: one of those that there are, or empty for the rule's own.

    Raises:
        SettingError: another.
    """
    if size in ("", None, "automatic"):
        return ""
    if not isinstance(size, str) or size not in SIZES:
        raise SettingError("size", "There is no such size.", advice=f"Choose one of {', '.join(SIZES)}.")
    return size
