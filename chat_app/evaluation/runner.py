"""The evaluation runner: loads one model at a time without an engine, evaluates it, and frees its memory.

The model that chats is not touched: the evaluated one is loaded beside it, with its weights in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from chat_app.config.fields import AUTOMATIC
from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.evaluation.evaluate import REPLY_TOKENS, evaluate
from chat_app.evaluation.evaluation import Evaluation
from chat_app.inference.generation import generate_greedily, generate_without_engine
from chat_app.models.device import resolve_precision
from chat_app.models.loading import fit_embeddings, load_parts
from chat_app.system.memory import release_memory
from chat_app.system.progress import Progress, ProgressCallback, add_prefix, ignore_progress
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder, Learn

T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationModel:
    """A loaded model for an evaluation: the model, its encoder, and the precision of the computing."""

    model: Any
    encoder: Encoder
    precision: str


def load_evaluation_model(name: str, asked: LoadConfig, paths: Paths) -> EvaluationModel:
    """A model without an engine.

    The weights are in float32 and, where that is fast, matrices are multiplied in bfloat16, as in training; another
    precision that is asked for is that of the weights.

    Raises:
        ModelError, FormatError, SettingError: as `models.loading.load_parts`.
    """
    config = replace(asked, precision="float32") if asked.precision == AUTOMATIC else asked
    model, tokenizer, files, detected_format = load_parts(name, config, paths)
    chosen = detected_format.format if config.format == AUTOMATIC else config.format
    encoder = Encoder(tokenizer, get_format(chosen), files.window)
    fit_embeddings(model, tokenizer)
    precision = resolve_precision(AUTOMATIC, model.device.type) if asked.precision == AUTOMATIC else "float32"
    return EvaluationModel(model, encoder, precision)


def with_model(name: str, paths: Paths, use: Callable[[EvaluationModel], T], asked: LoadConfig | None = None) -> T:
    """Load a model, use it, and give its memory back; `use` must not keep it.

    Raises:
        As `load_evaluation_model`, and what `use` raises.
    """
    try:
        return use(load_evaluation_model(name, asked or LoadConfig(), paths))
    finally:
        release_memory()


def evaluate_models(
    names: Sequence[str],
    conversations: Sequence[Conversation],
    paths: Paths,
    *,
    learn: Learn = "replies",
    most_replies: int = 100,
    asked: LoadConfig | None = None,
    progress: ProgressCallback = ignore_progress,
) -> list[Evaluation]:
    """The same test for each model, one after the other: never two in memory.

    Raises:
        ModelError, FormatError, SettingError, DataError: a model cannot be loaded, or nothing can be measured.
    """
    found: dict[str, Evaluation] = {}
    for number, name in enumerate(names, start=1):
        if name in found:
            continue
        report = add_prefix(f"Model {number} of {len(names)}: ", progress) if len(names) > 1 else progress

        def test(one: EvaluationModel, report: ProgressCallback = report) -> Evaluation:
            return evaluate(
                one.model,
                one.encoder,
                conversations,
                learn,
                precision=one.precision,
                most_replies=most_replies,
                progress=report,
            )

        report(Progress("Loading it."))
        found[name] = with_model(name, paths, test, asked)
    return [found[name] for name in names]


def generate_replies(
    name: str,
    prompts: Sequence[Conversation],
    paths: Paths,
    sampling: SamplingConfig | None = None,
    progress: ProgressCallback = ignore_progress,
) -> list[str]:
    """A model's reply to each prompt.

    Args:
        sampling: how to draw; with a seed in it the replies are always the same ones. None takes the likeliest words.

    Raises:
        ModelError, FormatError: it cannot be loaded.
        DataError: a prompt does not end with the user.
    """

    def reply(one: EvaluationModel, prompt: Conversation) -> str:
        if sampling is None:
            return generate_greedily(one.model, one.encoder, prompt, REPLY_TOKENS)
        return generate_without_engine(one.model, one.encoder, prompt, sampling)

    def answer(one: EvaluationModel) -> list[str]:
        replies: list[str] = []
        for prompt in prompts:
            progress(Progress(f"Wrote {len(replies):,} of {len(prompts):,} replies."))
            replies.append(reply(one, prompt))
        return replies

    return with_model(name, paths, answer)
