"""From files of conversations to a run, and from a run to a taught model: everything around the training itself."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

from chat_app.config.fields import AUTOMATIC
from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation
from chat_app.data.dataset import ConversationDataset
from chat_app.data.readers import ConversationSource, conversations_of, has_text
from chat_app.data.source import DataSource, load_source
from chat_app.data.splitting import write_split
from chat_app.data.text_corpus import write_pieces
from chat_app.data.tokenized_dataset import (
    WINDOW_LIMIT,
    ConcatenatedDataset,
    TokenizationOptions,
    TokenizedDataset,
    tokenize_conversations,
    tokenize_text,
)
from chat_app.errors import DataError, PeerProcessError, SettingError
from chat_app.models.model_card import run_card
from chat_app.runs.run import Run, new_id
from chat_app.system.progress import (
    LogCallback,
    Progress,
    ProgressCallback,
    ShouldStop,
    StoppedError,
    discard_line,
    ignore_progress,
    never_stop,
    stop_when,
)
from chat_app.tokenization.chat_formats import DEFAULT_FORMAT, get_format
from chat_app.tokenization.encoder import Encoder
from chat_app.training import distributed as ranks

SAMPLE_PROMPTS = 4
SAMPLE_TOKENS = 48
FAILURE = "failure"  # The mark of the one process, of several, that tells what went wrong.


def prepare_run(
    config: TrainConfig,
    train: ConversationSource,
    paths: Paths,
    *,
    valid: ConversationSource | None = None,
    texts: Iterable[str] | None = None,
    valid_texts: Iterable[str] | None = None,
    folder: Path | None = None,
    about: dict[str, Any] | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Run:
    """A run folder with its data: the conversations, the split, the problems.

    Conversations that their publisher meant for validation or for a test are kept apart as such.

    Args:
        valid: conversations for validation; without them, and without a part that is meant for it, a share of `train`
            is kept aside.
        texts, valid_texts: pieces of running text, which are learned whole.
        folder: where; default a new folder in the home.
        about: facts to keep, such as the names of the files.
        progress: is given the number of conversations written so far.

    Raises:
        DataError: nothing would be left to learn.
    """
    folder = folder or paths.runs / new_id(paths.runs, config.model)
    run = Run.create(folder, config, about)
    try:
        counts = write_split(run.data, config.valid_share, config.seed, train, valid, progress)
        run.note(**{f"{part}_conversations": count for part, count in counts.items()})
        if texts is not None or valid_texts is not None:
            counts += write_pieces(run.data, texts or (), valid_texts, config.valid_share, config.seed, progress)
            run.note(train_texts=counts["train_text"], valid_texts=counts["valid_text"])
        if not counts["train"] + counts["train_text"]:
            raise DataError("There are no conversations to learn from.", advice="Upload a file with at least one.")
        problems = chain(train.all_problems(), valid.all_problems() if valid else ())
        with (run.data / "problems.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in problems)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return run


def prepare_run_from(
    config: TrainConfig,
    wanted: DataSource,
    paths: Paths,
    *,
    valid: Path | None = None,
    folder: Path | None = None,
    progress: ProgressCallback = ignore_progress,
) -> tuple[Run, ConversationDataset]:
    """A run from files or a data set of the Hub, and what was read from them.

    Args:
        valid: a file of conversations for validation.
        progress: is given the number of conversations read so far, then of those written.
    """
    need_reply = config.learn == "replies"
    material = load_source(wanted, paths, need_reply=need_reply, progress=progress)
    tested = (
        load_source(replace(wanted, files=(valid,), names=(), hub=None), paths, need_reply=need_reply)
        if valid
        else None
    )
    about = {"files": wanted.given, "repairs": sorted(wanted.repairs)}
    return prepare_run(config, material, paths, valid=tested, folder=folder, about=about), material


def teach(
    run: Run,
    paths: Paths,
    *,
    should_stop: ShouldStop = never_stop,
    callbacks: Sequence[Any] = (),
    log: LogCallback = discard_line,
) -> None:
    """Train a prepared run to its end, or go on with one that stopped. Its state on disk tells how that ended.

    Args:
        should_stop: asked after each step; True saves a checkpoint and ends the run as "interrupted".
        callbacks: of transformers, for progress bars.
        log: takes one line for a person.

    Raises:
        ChatAppError: what is also the reason in the state, unless another process works on the run.
    """
    with run.lock() if ranks.is_first() else nullcontext():
        if ranks.is_first():
            run.clear_stop()
            (run.folder / FAILURE).unlink(missing_ok=True)
            run.set_state("running", "Getting ready.")
        try:
            ranks.wait()
            _teach_locked(run, paths, should_stop, callbacks, log)
        except StoppedError:
            run.set_state(
                "stopped" if run.stop_requested() else "interrupted", "It was stopped before the first step.", 0
            )
        except BaseException as error:
            if ranks.is_consequence(error) or not ranks.claim(run.folder / FAILURE):
                raise PeerProcessError from error
            run.set_state("failed", _reason(error))
            raise


def _teach_locked(run: Run, paths: Paths, should_stop: ShouldStop, callbacks: Sequence[Any], log: LogCallback) -> None:
    # Heavy imports wait until there is something to train.
    import torch
    from transformers import set_seed

    from chat_app.models.device import resolve_device, resolve_precision
    from chat_app.models.tokenizer import load_words
    from chat_app.training.autotune import settle
    from chat_app.training.inputs import TrainingInputs
    from chat_app.training.methods import Pupil, load_pupil
    from chat_app.training.trainer import train

    config = run.config()
    if config.threads:
        torch.set_num_threads(config.threads)
    set_seed(config.seed)
    device = resolve_device(config.device)
    known = run.about()
    # What was measured once holds for the whole run: another precision would be another result.
    precision = known.get("precision") or ranks.from_first(lambda: resolve_precision(config.precision, device))
    tokenizer, files, recognised = load_words(config.model, paths)
    name = config.format
    if name == AUTOMATIC:
        name = recognised.format if recognised.certain else DEFAULT_FORMAT
    known_tokens = len(tokenizer)
    encoder = Encoder(tokenizer, get_format(name), _window(config, files.window))
    new_tokens = range(known_tokens, len(tokenizer))
    if ranks.is_first():
        train_rows, valid_rows = _rows(run, encoder, paths, should_stop)
    ranks.wait()
    if not ranks.is_first():  # They are in the cache now.
        train_rows, valid_rows = _rows(run, encoder, paths, should_stop)
    if not train_rows:
        raise DataError("There is nothing to learn in these conversations.", advice="They need replies.")
    cut = train_rows.cut_turns
    if cut:
        log(f"{cut} turns are longer than the window of {encoder.window} tokens; they lost their beginning.")
    if ranks.is_first():
        run.note(
            precision=precision, device=device, format=name, window=encoder.window, cut_turns=cut, rows=len(train_rows)
        )
    ranks.wait()
    prompts = sample_prompts(run)
    save_as = config.save_as if config.save_as != AUTOMATIC else _precision_of(files.config)

    def load(settings: TrainConfig) -> Pupil:
        return load_pupil(
            settings,
            files,
            tokenizer,
            new_tokens,
            precision=precision,
            device=device,
            paths=paths,
            folder=run.folder,
        )

    def lesson_of(settings: TrainConfig, pupil: Pupil) -> TrainingInputs:
        return TrainingInputs(
            encoder,
            train_rows,
            valid_rows,
            device,
            precision,
            save_as,
            samples=lambda model: _sample_replies(model, encoder, prompts),
            base=pupil.base,
            card=lambda facts: run_card(settings, run.about(), {**facts, "format": name}),
        )

    log(f"{len(train_rows)} rows to learn, {len(valid_rows)} to test on, on {device} in {precision}.")
    config, pupil = settle(run, config, files, train_rows, len(new_tokens), load, lesson_of, should_stop, log)
    outcome = train(run, config, lesson_of(config, pupil), pupil.model, should_stop=should_stop, callbacks=callbacks)
    if ranks.is_first():
        run.set_state(outcome.status, outcome.reason, outcome.step)


def sample_prompts(run: Run) -> list[Conversation]:
    """What the model is asked at each evaluation: the questions that a person has pinned, else the beginnings of a few
    conversations that the model is tested on, up to the first thing the user says."""
    pinned = run.about().get("questions")
    if isinstance(pinned, list) and pinned:
        return [Conversation.from_turns([str(one)], last="user") for one in pinned]
    prompts: dict[str, Conversation] = {}
    for name in ("valid.jsonl", "train.jsonl"):
        path = run.data / name
        for conversation in conversations_of(path) if has_text(path) else ():
            first = conversation.turns[0]
            if first.role == "user" and first.text not in prompts and len(first.text) <= 300:
                prompts[first.text] = conversation.part(0, 1)
            if len(prompts) == SAMPLE_PROMPTS:
                return list(prompts.values())
    return list(prompts.values())


def _sample_replies(model: Any, encoder: Encoder, prompts: Sequence[Conversation]) -> list[dict[str, str]]:
    """The likeliest reply to each prompt: no chance is involved, so that two evaluations can be compared."""
    from chat_app.inference.generation import generate_greedily

    return [
        {"prompt": prompt.turns[-1].text, "reply": generate_greedily(model, encoder, prompt, SAMPLE_TOKENS)}
        for prompt in prompts
    ]


def _rows(
    run: Run, encoder: Encoder, paths: Paths, should_stop: ShouldStop
) -> tuple[TokenizedDataset | ConcatenatedDataset, TokenizedDataset | ConcatenatedDataset]:
    """What is learned and what the model is tested on, as rows."""
    config = run.config()
    learn: Any = config.learn
    rules = TokenizationOptions(learn, 1.0 - config.overlap, config.max_turns)
    cache = paths.cache_of("rows")
    written = time.monotonic()

    def report(now: Progress) -> None:
        nonlocal written
        if time.monotonic() - written > 1:
            written = time.monotonic()
            run.set_state("running", f"Getting ready: {now.done:,} conversations are laid out.")

    progress = stop_when(lambda: run.stop_requested() or should_stop(), report)

    def of(part: str) -> TokenizedDataset | ConcatenatedDataset:
        said = tokenize_conversations(run.data / f"{part}.jsonl", encoder, rules, cache, progress=progress)
        read = tokenize_text(run.data / f"{part}_text.jsonl", encoder, cache, progress=progress)
        return ConcatenatedDataset(said, read) if len(read) else said

    return of("train"), of("valid")


def _window(config: TrainConfig, of_model: int) -> int:
    """How many tokens a row may have."""
    if config.window > of_model:
        raise SettingError(
            "window", f"The model sees {of_model} tokens at most.", advice="Give a smaller window, or 0."
        )
    return config.window or min(of_model, WINDOW_LIMIT)


def _precision_of(config: dict[str, Any]) -> str | None:
    """The precision in which the starting model lies on the disk."""
    named = str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch.")
    return named if named in ("float32", "bfloat16", "float16") else None


def _reason(error: BaseException) -> str:
    from chat_app.errors import ChatAppError

    if isinstance(error, ChatAppError):
        return error.sentence()
    return f"{type(error).__name__}: {error}"[:500]


def be_gentle() -> None:
    """Give way to the chat: a lower priority for this process."""
    import psutil

    process = psutil.Process(os.getpid())
    try:
        process.nice(getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", 10))  # The name exists on Windows only.
    except psutil.Error:
        return
