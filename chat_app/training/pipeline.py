"""The training pipeline: from a prepared run to a trained model, in named steps around the training loop.

Seed, device, tokenizer, tokenized rows, plan, training loop (`trainer`), state. `prepare` makes the run before.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chat_app.config.fields import AUTOMATIC
from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation
from chat_app.data.readers import has_text, iterate_conversations
from chat_app.data.splitting import explain_no_validation
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
from chat_app.runs.run import Run
from chat_app.system.disk_errors import explain_disk_error
from chat_app.system.progress import (
    NEVER_STOP,
    LogCallback,
    Progress,
    ShouldStop,
    StoppedError,
    StopRequest,
    discard_line,
    stop_when,
)
from chat_app.tokenization.chat_formats import DEFAULT_FORMAT, get_format
from chat_app.tokenization.encoder import Encoder
from chat_app.training import distributed
from chat_app.training.answer_check import REPLY_TOKENS, AnswerCheck, read_answer_check
from chat_app.training.decisions import check_base, check_data, check_rows
from chat_app.training.small_sets import VARIANTS, SmallSet, describe_small_set, read_small_set, resolve_small_set

if TYPE_CHECKING:  # These bring torch, which waits until there is something to train.
    from chat_app.models.resolver import ModelFiles
    from chat_app.training.inputs import TrainingInputs
    from chat_app.training.methods import TrainableModel

SAMPLE_PROMPTS = 4
SAMPLE_TOKENS = 48
FAILURE = "failure"  # The file by which one of several failed processes claims to report the reason.


def train_run(
    run: Run,
    paths: Paths,
    *,
    stop: StopRequest = NEVER_STOP,
    callbacks: Sequence[Any] = (),
    log: LogCallback = discard_line,
    only_queued: bool = False,
) -> None:
    """Train a prepared run to its end, or go on with one that stopped. Its state on disk says how that ended.

    Args:
        stop: asked after each step; if a stop is wanted, a checkpoint is saved and the run ends as "interrupted".
        callbacks: of transformers, for progress bars.
        log: takes one line for a person.
        only_queued: only while the run waits in the queue.

    Raises:
        ChatAppError: what is also the reason in the state, unless another process works on the run.
    """
    with run.claim(only_queued=only_queued) if distributed.is_main_process() else nullcontext():
        try:
            if distributed.is_main_process():
                (run.folder / FAILURE).unlink(missing_ok=True)
            distributed.barrier()
            _train_locked(run, paths, stop, callbacks, log)
        except StoppedError:
            stopped = run.stop_requested()
            reason = "It was stopped before the first step." if stopped else stop.describe()
            run.set_state("stopped" if stopped else "interrupted", reason)
        except KeyboardInterrupt:
            if distributed.is_main_process():
                run.set_state("interrupted", "It was ended at once. It goes on from its last checkpoint.")
            raise
        except BaseException as error:
            if distributed.is_consequence(error) or not distributed.claim_failure(run.folder / FAILURE):
                raise PeerProcessError from error
            explained = explain_disk_error(error) or error
            with contextlib.suppress(OSError):  # The disk may refuse even this; the error itself is told all the same.
                run.set_state("failed", _describe_error(explained), decision=getattr(explained, "decision", ""))
            raise explained from error


def _train_locked(run: Run, paths: Paths, stop: StopRequest, callbacks: Sequence[Any], log: LogCallback) -> None:
    """The steps of a training, in a process that holds the run's lock or works for the one that does."""
    from chat_app.training.autotune import resolve_plan
    from chat_app.training.trainer import choose_checkpoint, train

    config = run.config()
    check_data(run)
    checkpoint = choose_checkpoint(run, log)
    _seed_and_limit_threads(config)
    device, precision = _resolve_hardware(run, config)
    encoder, files, new_tokens = _load_encoder(config, paths)
    train_rows, valid_rows = _tokenize_in_turn(run, encoder, paths, stop.is_wanted)
    check_rows(run, train_rows, valid_rows, is_resumed=checkpoint is not None)
    setup = _Setup(run, paths, encoder, files, new_tokens, device, precision, train_rows, valid_rows)
    _note_setup(setup, log)
    config = resolve_small_set(config, setup.small_set, len(train_rows))
    config, trainable = resolve_plan(
        run, config, files, train_rows, len(new_tokens), setup.load_model, setup.make_inputs, stop.is_wanted, log
    )
    check_base(run, config, files, is_resumed=checkpoint is not None)
    _note_used_settings(run, config, files)
    inputs = setup.make_inputs(config, trainable)
    outcome = train(run, config, inputs, trainable.model, stop=stop, callbacks=callbacks)
    if distributed.is_main_process():
        run.set_state(outcome.status, outcome.reason, outcome.step)


@dataclass(frozen=True)
class _Setup:
    """What a training is set up with before its plan is chosen.

    Attributes:
        files: of the model to start from.
        new_tokens: the ids of special tokens that this model has never seen.
        train_rows, valid_rows: the tokenized data.
    """

    run: Run
    paths: Paths
    encoder: Encoder
    files: ModelFiles
    new_tokens: range
    device: str
    precision: str
    train_rows: TokenizedDataset | ConcatenatedDataset
    valid_rows: TokenizedDataset | ConcatenatedDataset

    @property
    def small_set(self) -> SmallSet | None:
        """How the conversations are learned if they are few."""
        return read_small_set(self.run.about())

    def load_model(self, settings: TrainConfig) -> TrainableModel:
        """The model of these settings, ready for its method."""
        from chat_app.training.methods import load_trainable_model

        return load_trainable_model(
            settings,
            self.files,
            self.encoder.tokenizer,
            self.new_tokens,
            precision=self.precision,
            device=self.device,
            paths=self.paths,
            folder=self.run.folder,
        )

    def make_inputs(self, settings: TrainConfig, trainable: TrainableModel) -> TrainingInputs:
        """What the training loop is given beside the model."""
        from chat_app.training.inputs import TrainingInputs

        prompts, check, small = choose_sample_prompts(self.run), read_answer_check(self.run), self.small_set
        return TrainingInputs(
            self.encoder,
            self.train_rows,
            self.valid_rows,
            self.device,
            self.precision,
            settings.save_as if settings.save_as != AUTOMATIC else _stored_precision(self.files.config),
            samples=lambda model: _sample_replies(model, self.encoder, prompts),
            base=trainable.base,
            answers=None if check is None else lambda model: _check_answers(model, self.encoder, check),
            keep_last=small is not None and small.keep_last,
            readings=1.0 if small is None else small.wordings / small.read,
            card=lambda facts: run_card(settings, self.run.about(), {**facts, "format": self.encoder.format.name}),
        )


def _seed_and_limit_threads(config: TrainConfig) -> None:
    import torch
    from transformers import set_seed

    if config.threads:
        torch.set_num_threads(config.threads)
    set_seed(config.seed)


def _resolve_hardware(run: Run, config: TrainConfig) -> tuple[str, str]:
    """The device and the precision of the computing. A precision that was measured once holds for the whole run:
    another one would give other weights."""
    from chat_app.models.device import resolve_device, resolve_precision

    device = resolve_device(config.device)
    precision = run.about().get("precision") or distributed.broadcast_from_main(
        lambda: resolve_precision(config.precision, device)
    )
    return device, precision


def _load_encoder(config: TrainConfig, paths: Paths) -> tuple[Encoder, ModelFiles, range]:
    """The tokenizer with its format, the model's files, and the ids of the special tokens that the format adds."""
    from chat_app.models.tokenizer import load_without_weights

    tokenizer, files, detected_format = load_without_weights(config.model, paths)
    name = config.format
    if name == AUTOMATIC:
        name = detected_format.format if detected_format.certain else DEFAULT_FORMAT
    known_tokens = len(tokenizer)
    encoder = Encoder(tokenizer, get_format(name), _choose_window(config, files.window))
    return encoder, files, range(known_tokens, len(tokenizer))


def _tokenize_in_turn(
    run: Run, encoder: Encoder, paths: Paths, should_stop: ShouldStop
) -> tuple[TokenizedDataset | ConcatenatedDataset, TokenizedDataset | ConcatenatedDataset]:
    """The tokenized data. The main process makes it, then the others find it in the cache."""
    if distributed.is_main_process():
        rows = _tokenize(run, encoder, paths, should_stop)
    distributed.barrier()
    if not distributed.is_main_process():
        rows = _tokenize(run, encoder, paths, should_stop)
    return rows


def _note_used_settings(run: Run, config: TrainConfig, files: ModelFiles) -> None:
    """Keep in the run what its settings had left open. (Its window, format and precision are noted before.)"""
    from chat_app.training.memory_estimate import get_model_shape

    names = ("method", "learning_rate", "batch_size", "accumulation", "optimizer", "gradient_checkpointing")
    used = {name: getattr(config, name) for name in names}
    if distributed.is_main_process():
        run.note(used={**used, "dropout": get_model_shape(files, 0, config.dropout).dropout})


def _note_setup(setup: _Setup, log: LogCallback) -> None:
    """Keep what was decided in the run, and say it."""
    rows, encoder = setup.train_rows, setup.encoder
    if not rows:
        raise DataError("There is nothing to learn in these conversations.", advice="They need replies.")
    if rows.cut_turns:
        log(f"{rows.cut_turns} turns are longer than the window of {encoder.window} tokens; they lost their beginning.")
    if distributed.is_main_process():
        setup.run.note(
            precision=setup.precision,
            device=setup.device,
            format=encoder.format.name,
            window=encoder.window,
            cut_turns=rows.cut_turns,
            rows=len(rows),
        )
    distributed.barrier()
    if how := describe_small_set(setup.run.about(), setup.run.config().epochs):
        log(how)
    log(f"{len(rows)} rows to learn, {_describe_tests(setup)}, on {setup.device} in {setup.precision}.")


def _describe_tests(setup: _Setup) -> str:
    """How many rows there are to test on; with the reason if there are none."""
    if setup.valid_rows:
        return f"{len(setup.valid_rows)} to test on"
    about = setup.run.about()
    if about.get("valid_conversations") or about.get("valid_texts"):
        return "none to test on, since what was kept aside has no reply that fits"
    count = (about.get("train_conversations") or 0) + (about.get("train_texts") or 0)
    return f"none to test on, since {explain_no_validation(setup.run.config().valid_share, count)}"


def choose_sample_prompts(run: Run) -> list[Conversation]:
    """What the model is asked at each evaluation: the pinned questions of the run, else the first user turns of a few
    validation conversations."""
    pinned = run.about().get("questions")
    if isinstance(pinned, list) and pinned:
        return [Conversation.from_turns([str(one)], last="user") for one in pinned]
    prompts: dict[str, Conversation] = {}
    for name in ("valid.jsonl", "train.jsonl"):
        path = run.data / name
        for conversation in iterate_conversations(path) if has_text(path) else ():
            first = conversation.turns[0]
            if first.role == "user" and first.text not in prompts and len(first.text) <= 300:
                prompts[first.text] = conversation.slice_turns(0, 1)
            if len(prompts) == SAMPLE_PROMPTS:
                return list(prompts.values())
    return list(prompts.values())


def _sample_replies(model: Any, encoder: Encoder, prompts: Sequence[Conversation]) -> list[dict[str, str]]:
    """Greedy replies to the prompts: without sampling, two evaluations can be compared."""
    from chat_app.inference.generation import generate_greedily

    return [
        {"prompt": prompt.turns[-1].text, "reply": generate_greedily(model, encoder, prompt, SAMPLE_TOKENS)}
        for prompt in prompts
    ]


def _check_answers(model: Any, encoder: Encoder, check: AnswerCheck) -> tuple[int, int]:
    """How many of the questions kept aside a model answers right, and how many there are."""
    from chat_app.inference.generation import generate_greedily

    return check.count_right(lambda question: generate_greedily(model, encoder, question, REPLY_TOKENS))


def _tokenize(
    run: Run, encoder: Encoder, paths: Paths, should_stop: ShouldStop
) -> tuple[TokenizedDataset | ConcatenatedDataset, TokenizedDataset | ConcatenatedDataset]:
    """The rows to learn from and the rows to validate on, from the cache where they were made before."""
    config = run.config()
    learn: Any = config.learn
    rules = TokenizationOptions(learn, 1.0 - config.overlap, config.max_turns)
    cache = paths.open_cache("rows")
    written = time.monotonic()

    def report(now: Progress) -> None:
        nonlocal written
        if time.monotonic() - written > 1:
            written = time.monotonic()
            run.set_state("running", f"Getting ready: {now.done:,} conversations are laid out.")

    progress = stop_when(lambda: run.stop_requested() or should_stop(), report)

    def of(part: str) -> TokenizedDataset | ConcatenatedDataset:
        said: TokenizedDataset | ConcatenatedDataset
        said = tokenize_conversations(run.data / f"{part}.jsonl", encoder, rules, cache, progress=progress)
        if part == "train" and has_text(run.data / f"{VARIANTS}.jsonl"):
            further = tokenize_conversations(run.data / f"{VARIANTS}.jsonl", encoder, rules, cache, progress=progress)
            said = ConcatenatedDataset(said, further)
        read = tokenize_text(run.data / f"{part}_text.jsonl", encoder, cache, progress=progress)
        return ConcatenatedDataset(said, read) if len(read) else said

    return of("train"), of("valid")


def check_window(config: TrainConfig, of_model: int) -> None:
    """Check that the model sees as long a window as was asked for.

    Raises:
        SettingError: it does not.
    """
    if config.window > of_model:
        raise SettingError(
            "window", f"The model sees {of_model} tokens at most.", advice="Give a smaller window, or 0."
        )


def _choose_window(config: TrainConfig, of_model: int) -> int:
    """The context window: the most tokens of a row."""
    check_window(config, of_model)
    return config.window or min(of_model, WINDOW_LIMIT)


def _stored_precision(config: dict[str, Any]) -> str | None:
    """The precision in which the starting model is stored."""
    named = str(config.get("dtype") or config.get("torch_dtype") or "").removeprefix("torch.")
    return named if named in ("float32", "bfloat16", "float16") else None


def _describe_error(error: BaseException) -> str:
    from chat_app.errors import ChatAppError

    if isinstance(error, ChatAppError):
        return error.sentence()
    return f"{type(error).__name__}: {error}"[:500]


def lower_priority() -> None:
    """Lower this process's priority, so that it gives way to the chat."""
    import psutil

    process = psutil.Process(os.getpid())
    try:
        process.nice(getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", 10))  # The name exists on Windows only.
    except psutil.Error:
        return
