"""From files of conversations to a run, and from a run to a taught model: everything around the training itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chat_app import ranks
from chat_app.cards import run_card
from chat_app.config import AUTOMATIC, Paths, TrainConfig
from chat_app.conversation import Conversation
from chat_app.encoding import Encoder, Example
from chat_app.errors import DataError, Elsewhere, SettingError
from chat_app.formats import DEFAULT_FORMAT, get_format
from chat_app.reading import Problem, Reading, iterate, read_files, write_jsonl
from chat_app.runs import Run, new_id, write_text
from chat_app.split import split_conversations

WINDOW_LIMIT = 1024
SAMPLE_PROMPTS = 4
SAMPLE_TOKENS = 48
FAILURE = "failure"  # The mark of the one process, of several, that tells what went wrong.


def prepare_run(
    config: TrainConfig,
    train: Reading,
    paths: Paths,
    *,
    valid: Reading | None = None,
    folder: Path | None = None,
    about: dict[str, Any] | None = None,
) -> Run:
    """A run folder with its data: the conversations, the split, the problems.

    Args:
        valid: conversations for validation; without them a share of `train` is kept aside.
        folder: where; default a new folder in the home.
        about: facts to keep, such as the names of the files.

    Raises:
        DataError: nothing would be left to learn.
    """
    if valid is None:
        learned, tested = split_conversations(train.conversations, config.valid_share, config.seed)
    else:
        learned, tested = train.conversations, valid.conversations
    if not learned:
        raise DataError("There are no conversations to learn from.", advice="Upload a file with at least one.")
    facts = {"train_conversations": len(learned), "valid_conversations": len(tested), **(about or {})}
    folder = folder or paths.runs / new_id(paths.runs, config.model)
    run = Run.create(folder, config, facts)
    try:
        write_jsonl(learned, run.data / "train.jsonl")
        write_jsonl(tested, run.data / "valid.jsonl")
        problems = [*train.problems, *(valid.problems if valid else [])]
        write_text(
            run.data / "problems.jsonl",
            "".join(json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in problems),
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return run


def prepare_run_from_files(
    config: TrainConfig,
    files: Sequence[Path],
    paths: Paths,
    *,
    valid: Path | None = None,
    folder: Path | None = None,
) -> tuple[Run, Reading]:
    """A run from files, and what was read from them."""
    need_reply = config.learn == "replies"
    reading = read_files(files, need_reply=need_reply)
    tested = read_files([valid], need_reply=need_reply) if valid else None
    names = {"files": [Path(file).name for file in files]}
    return prepare_run(config, reading, paths, valid=tested, folder=folder, about=names), reading


def teach(
    run: Run,
    paths: Paths,
    *,
    interrupted: Callable[[], bool] = lambda: False,
    callbacks: Sequence[Any] = (),
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Train a prepared run to its end, or go on with one that stopped. Its state on disk tells how that ended.

    Args:
        interrupted: asked after each step; True saves a checkpoint and ends the run as "interrupted".
        callbacks: of transformers, for progress bars.
        say: takes one line for a person.

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
            _teach_locked(run, paths, interrupted, callbacks, say)
        except BaseException as error:
            if ranks.is_consequence(error) or not ranks.claim(run.folder / FAILURE):
                raise Elsewhere from error
            run.set_state("failed", _reason(error))
            raise


def _teach_locked(
    run: Run, paths: Paths, interrupted: Callable[[], bool], callbacks: Sequence[Any], say: Callable[[str], None]
) -> None:
    # Heavy imports wait until there is something to train.
    import torch
    from transformers import set_seed

    from chat_app.devices import resolve_device, resolve_precision
    from chat_app.fitting import settle
    from chat_app.lesson import Lesson
    from chat_app.methods import Pupil, load_pupil
    from chat_app.models import load_words
    from chat_app.training import train

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
    train_rows, cut = _rows(encoder, run.data / "train.jsonl", config)
    valid_rows, _ = _rows(encoder, run.data / "valid.jsonl", config)
    if not train_rows:
        raise DataError("There is nothing to learn in these conversations.", advice="They need replies.")
    if cut:
        say(f"{cut} turns are longer than the window of {encoder.window} tokens; they lost their beginning.")
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

    def lesson_of(settings: TrainConfig, pupil: Pupil) -> Lesson:
        return Lesson(
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

    say(f"{len(train_rows)} rows to learn, {len(valid_rows)} to test on, on {device} in {precision}.")
    config, pupil = settle(run, config, files, train_rows, len(new_tokens), load, lesson_of, interrupted, say)
    outcome = train(run, config, lesson_of(config, pupil), pupil.model, interrupted=interrupted, callbacks=callbacks)
    if ranks.is_first():
        run.set_state(outcome.status, outcome.reason, outcome.step)


def sample_prompts(run: Run) -> list[Conversation]:
    """The beginnings of a few conversations that the model is tested on, up to the first thing the user says."""
    prompts: dict[str, Conversation] = {}
    for name in ("valid.jsonl", "train.jsonl"):
        path = run.data / name
        for conversation in _conversations(path):
            first = conversation.turns[0]
            if first.role == "user" and first.text not in prompts and len(first.text) <= 300:
                prompts[first.text] = conversation.part(0, 1)
            if len(prompts) == SAMPLE_PROMPTS:
                return list(prompts.values())
    return list(prompts.values())


def _sample_replies(model: Any, encoder: Encoder, prompts: Sequence[Conversation]) -> list[dict[str, str]]:
    """The likeliest reply to each prompt: no chance is involved, so that two evaluations can be compared."""
    from chat_app.chat import likeliest_reply

    return [
        {"prompt": prompt.turns[-1].text, "reply": likeliest_reply(model, encoder, prompt, SAMPLE_TOKENS)}
        for prompt in prompts
    ]


def _conversations(path: Path) -> Iterator[Conversation]:
    if path.exists() and path.stat().st_size:
        for item in iterate(path, need_reply=False):
            if not isinstance(item, Problem):
                yield item.conversation


def _rows(encoder: Encoder, path: Path, config: TrainConfig) -> tuple[list[Example], int]:
    """The rows of a file of conversations, and how many turns lost their beginning."""
    learn: Any = config.learn
    rows: list[Example] = []
    for conversation in _conversations(path):
        rows += encoder.examples(conversation, learn, 1.0 - config.overlap, config.max_turns)
    return rows, sum(row.cut_tokens > 0 for row in rows)


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
