"""Pretraining from scratch: the model size and vocabulary that suit so much text, and a run that begins with them.

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
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.data.dataset import ConversationDataset
from chat_app.data.readers import Reading
from chat_app.data.source import DataSource, load_source
from chat_app.data.text_corpus import is_plain_text, iterate_chunks
from chat_app.errors import DataError, SettingError
from chat_app.runs.run import Run, new_id
from chat_app.system.child_job import run_in_child
from chat_app.system.progress import Progress, ProgressCallback, ignore_progress
from chat_app.training.prepare import create_run, write_data
from chat_app.training.pretraining import SIZES, add_new_model, check_size, learn_tokenizer

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


def propose_size(characters: int, size: str = "") -> Proposal:
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


def prepare_from_scratch(
    config: TrainConfig,
    source: DataSource,
    texts: Sequence[Path],
    paths: Paths,
    *,
    tokenizer: Path | None = None,
    size: str = "",
    valid: Path | None = None,
    about: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Run:
    """Prepare a run that begins with a new model that knows nothing, which lies in the run folder under `start`.

    Args:
        source: conversations; it may be empty. texts: files of running text.
        tokenizer: a tokenizer folder; without one a tokenizer is trained on the conversations and texts.
        size: as for `propose_size`.
        valid: a file of conversations, or of running text, for validation.
        about: further facts to keep, such as whose run it is.
        folder: of the run; default a new one in the home.
        progress: is given a sentence about how far it is.

    Raises:
        DataError: there is too little, or it cannot be read. SettingError: no such size.
    """
    dataset = load_source(source, paths, need_reply=False) if source.files or source.hub else None
    plan = _plan_model(dataset, texts, tokenizer, size, progress)
    folder = folder or paths.runs / new_id(paths.runs, f"new-{plan.size}")
    names = [*source.given, *(path.name for path in texts)]
    facts = {**(about or {}), "files": names, "from_nothing": plan.size, "vocabulary": plan.vocabulary}
    words = tokenizer or folder.with_name(f".{folder.name}.words")
    try:
        if tokenizer is None:
            progress(Progress(f"Learning {plan.vocabulary:,} pieces of words."))
            learn_tokenizer(_limit_texts(_all_texts(dataset, texts), progress), plan.vocabulary, words)
        with create_run(config, paths, folder, facts) as run:
            _write_conversations_and_texts(run, config, dataset, texts, valid, paths, progress)
            progress(Progress("Making a model that knows nothing yet."))
            add_new_model(run, words, plan.size, config.seed)
        return run
    finally:
        if tokenizer is None:
            shutil.rmtree(words, ignore_errors=True)


def prepare_from_scratch_in_child(
    config: TrainConfig,
    source: DataSource,
    texts: Sequence[Path],
    paths: Paths,
    *,
    size: str,
    about: Mapping[str, Any],
    progress: ProgressCallback,
) -> Run:
    """As `prepare_from_scratch`, in a child process: learning a tokenizer takes memory, and making a model torch.

    Raises:
        ChildProcessDiedError: the process ended, crashed or ran out of memory.
    """
    function = f"{__name__}.prepare_from_scratch"
    made = run_in_child(function, config, source, texts, paths, size=size, about=about, progress=progress)
    return cast("Run", made)


def _plan_model(
    dataset: ConversationDataset | None,
    texts: Sequence[Path],
    tokenizer: Path | None,
    size: str,
    progress: ProgressCallback,
) -> Proposal:
    """The size and the vocabulary as they were given; what was not follows from how much text there is."""
    from chat_app.models.tokenizer import load_tokenizer

    if size:
        check_size(size)
    vocabulary = len(load_tokenizer(tokenizer)) if tokenizer is not None else 0
    if vocabulary and size:
        return Proposal(0, size, vocabulary)
    characters = 0
    for text in _all_texts(dataset, texts):
        characters += len(text)
        progress(Progress(f"Counting: {characters / 1e6:.1f} million characters so far."))
    plan = propose_size(characters, size)
    return replace(plan, vocabulary=vocabulary) if vocabulary else plan


def _write_conversations_and_texts(
    run: Run,
    config: TrainConfig,
    dataset: ConversationDataset | None,
    texts: Sequence[Path],
    valid: Path | None,
    paths: Paths,
    progress: ProgressCallback,
) -> None:
    nothing = Reading([], [], [], "text", "")
    is_text = valid is not None and is_plain_text(valid)
    write_data(
        run,
        config,
        dataset if dataset is not None else nothing,
        valid=load_source(DataSource((valid,)), paths, need_reply=False) if valid is not None and not is_text else None,
        texts=chain.from_iterable(map(iterate_chunks, texts)) if texts else None,
        valid_texts=iterate_chunks(valid) if valid is not None and is_text else None,
        progress=lambda now: progress(Progress(f"Writing: {now.done:,} so far.")),
    )


def _all_texts(dataset: ConversationDataset | None, texts: Sequence[Path]) -> Iterator[str]:
    if dataset is not None:
        for conversation in dataset.iterate_conversations():
            yield from (message.text for message in conversation.messages)
    yield from chain.from_iterable(map(iterate_chunks, texts))


def _limit_texts(texts: Iterator[str], progress: ProgressCallback) -> Iterator[str]:
    """As much of the texts as training a tokenizer needs."""
    read = 0
    for text in texts:
        read += len(text)
        progress(Progress(f"Learning the pieces of words: {read / 1e6:.1f} million characters read."))
        yield text
        if read >= MOST_READ:
            return


def parse_size(size: object) -> str:
    """A size from a page: one of those that there are, or empty for the rule's own.

    Raises:
        SettingError: another.
    """
    if size in ("", None, "automatic"):
        return ""
    if not isinstance(size, str) or size not in SIZES:
        raise SettingError("size", "There is no such size.", advice=f"Choose one of {', '.join(SIZES)}.")
    return size
