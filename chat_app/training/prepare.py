"""From a source of conversations to a run that can be trained: its folder, data, split, facts and recipe.

The page and the command line both call `prepare_run`, so the same source gives the same run at both.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.data.dataset import ConversationDataset
from chat_app.data.readers import ConversationSource
from chat_app.data.source import DataSource, load_source
from chat_app.data.splitting import write_split
from chat_app.data.text_corpus import write_chunks
from chat_app.errors import DataError, RunError
from chat_app.runs.data_manifest import seal_data
from chat_app.runs.run import Run, is_run_folder, new_id
from chat_app.system.disk_cache import digest_content
from chat_app.system.progress import ProgressCallback, ignore_progress
from chat_app.training.recipe import write_recipe
from chat_app.training.small_sets import find_small_set, suited_valid_share, write_small_set


def prepare_run(
    config: TrainConfig,
    source: DataSource,
    paths: Paths,
    *,
    valid: Path | None = None,
    questions: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    progress: ProgressCallback = ignore_progress,
) -> tuple[Run, ConversationDataset]:
    """Prepare a run from files or a data set of the Hub.

    Args:
        valid: a file of conversations for validation, read as `source` is.
        questions: what the model is asked at each evaluation; none takes a few from the conversations.
        about: further facts to keep, such as whose run it is.
        folder: of the run; default a new one in the home.
        progress: is given the number of conversations read so far, then of those written.

    Returns:
        The run, and what was read.

    Raises:
        DataError: the source cannot be read, or nothing in it can be learned.
    """
    need_reply = config.learn == "replies"
    dataset = load_source(source, paths, need_reply=need_reply, progress=progress)
    held_out = None
    if valid is not None:
        held_out = load_source(replace(source, files=(valid,), names=(), hub=None), paths, need_reply=need_reply)
    facts = {
        "files": source.given,
        "repairs": sorted(source.repairs),
        "reading": source.to_flags(),
        "questions": list(questions),
        "source_digest": digest_files(source.files),
    }
    with create_run(config, paths, folder, {**facts, **(about or {})}) as run:
        write_data(run, config, dataset, valid=held_out, progress=progress)
        # An upload is known by the name that its owner gave it, a file of this computer by its whole path.
        files = source.names or [path.resolve() for path in source.files]
        write_recipe(run, files, source.to_settings(), valid.resolve() if valid is not None else None)
    return run, dataset


def digest_files(files: Iterable[Path]) -> str:
    """A digest of the files that a run is prepared from; empty where there are none, or a folder is among them."""
    paths = list(files)
    return digest_content(paths) if paths and all(path.is_file() for path in paths) else ""


@contextlib.contextmanager
def create_run(
    config: TrainConfig, paths: Paths, folder: Path | None = None, about: Mapping[str, Any] | None = None
) -> Iterator[Run]:
    """Create a run folder; it is removed again if the block fails. If this process is killed, the folder is known as
    one that was not prepared to its end, and the next call with the same folder prepares it anew.

    Args:
        folder: where; default a new folder in the home.
        about: facts to keep beside the settings.

    Raises:
        RunError: there is a run in the folder already, or something else, or another process prepares it.
    """
    run = Run(folder or paths.runs / new_id(paths.runs, config.model))
    if run.is_unprepared:
        shutil.rmtree(run.folder)
    if not is_run_folder(run.folder) and run.folder.is_dir() and any(run.folder.iterdir()):
        raise RunError(f"There are other files in {run.folder}.", advice="Choose another folder for the run.")
    with run.preparing():
        run = Run.create(run.folder, config, about)
        try:
            yield run
            seal_data(run.data)
        except BaseException:
            shutil.rmtree(run.folder, ignore_errors=True)
            raise


def write_data(
    run: Run,
    config: TrainConfig,
    train: ConversationSource,
    *,
    valid: ConversationSource | None = None,
    texts: Iterable[str] | None = None,
    valid_texts: Iterable[str] | None = None,
    progress: ProgressCallback = ignore_progress,
) -> None:
    """Write what a run learns into its folder: the conversations, the split, the problems.

    Conversations that their publisher meant for validation or for a test are kept apart as such.

    Args:
        valid: conversations for validation; without them, and without a part that is meant for it, a share of `train`
            is kept aside.
        texts, valid_texts: pieces of running text, which are learned whole.
        progress: is given the number of conversations written so far.

    Raises:
        DataError: nothing would be left to learn.
    """
    is_talk = texts is None and valid_texts is None
    few = find_small_set(config, train) if is_talk else None
    share = config.valid_share if few is None else suited_valid_share(config)
    counts = write_split(run.data, share, config.seed, train, valid, progress)
    if few and counts["train"]:
        counts.update(write_small_set(run, config))
    run.note(**{f"{part}_conversations": count for part, count in counts.items()})
    if texts is not None or valid_texts is not None:
        counts += write_chunks(run.data, texts or (), valid_texts, config.valid_share, config.seed, progress)
        run.note(train_texts=counts["train_text"], valid_texts=counts["valid_text"])
    if not counts["train"] + counts["train_text"]:
        raise DataError("There are no conversations to learn from.", advice="Upload a file with at least one.")
    problems = chain(train.iterate_problems(), valid.iterate_problems() if valid else ())
    with (run.data / "problems.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in problems)


def write_run(
    config: TrainConfig,
    train: ConversationSource,
    paths: Paths,
    *,
    folder: Path | None = None,
    about: Mapping[str, Any] | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Run:
    """A run of conversations that no file holds, such as corrected replies. It has no recipe."""
    with create_run(config, paths, folder, about) as run:
        write_data(run, config, train, progress=progress)
    return run
