"""A model from nothing: its size by how much text there is, and a run that begins with new words and a new model."""

from __future__ import annotations

from pathlib import Path

import pytest

from chat_app.config.fields import from_mapping
from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.data.source import DataSource
from chat_app.data.text_corpus import read_chunks
from chat_app.errors import DataError, SettingError
from chat_app.models.resolver import find
from chat_app.models.tokenizer import load_tokenizer
from chat_app.runs.run import list_runs
from chat_app.system.progress import Progress
from chat_app.training.pretraining import PRETRAIN_DEFAULTS
from chat_app.training.pretraining_plan import layer_parameters, parse_size, prepare_from_scratch, propose_size
from chat_app.training.recipe import command_for

CONFIG = from_mapping(TrainConfig, dict(PRETRAIN_DEFAULTS))


@pytest.mark.parametrize(
    ("characters", "size", "vocabulary"),
    [(2_000, "nano", 512), (1_000_000, "nano", 2_496), (30_000_000, "nano", 4_096), (50_000_000, "mini", 8_192),
     (250_000_000, "mini", 8_192), (500_000_000, "compact", 16_384), (2_000_000_000, "small", 32_768),
     (10_000_000_000, "medium", 32_768)],
)  # fmt: skip
def test_the_size_follows_the_text(characters: int, size: str, vocabulary: int) -> None:
    plan = propose_size(characters)
    assert (plan.size, plan.vocabulary) == (size, vocabulary)


def test_a_size_can_be_chosen_and_is_checked() -> None:
    assert layer_parameters("small") == 84_934_656  # GPT-2's, without its biases and norms.
    plan = propose_size(10_000, "mini")
    assert (plan.size, plan.vocabulary, plan.parameters) == ("mini", 512, 10_616_832 + 512 * 384)
    assert parse_size("automatic") == parse_size("") == ""
    assert parse_size("nano") == "nano"
    for wrong in ("huge", 7, ["nano"]):
        with pytest.raises(SettingError):
            parse_size(wrong)


def test_too_little_text_is_refused() -> None:
    with pytest.raises(DataError, match="1,999 characters"):
        propose_size(1_999)


def test_a_run_from_conversations_and_running_text(paths: Paths, tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("\n\n".join(f"In chapter {number} the shop was open all day." for number in range(900)))
    talk = tmp_path / "talk.tsv"
    talk.write_text("".join(f"Is the shop {number} open?\tIt is open all day.\n" for number in range(40)))
    told: list[str] = []
    run = prepare_from_scratch(
        CONFIG, DataSource((talk,)), (book,), paths, about={"by": "me"}, progress=lambda now: told.append(now.message)
    )
    config, about = run.config(), run.about()
    assert config.model == str(run.folder / "start")
    assert about["files"] == ["talk.tsv", "book.txt"]
    assert about["from_nothing"] == "nano"
    assert about["train_conversations"] + about["valid_conversations"] == 40
    assert "chapter 899" in " ".join(
        text for part in ("train", "valid") for text in read_chunks(run.data / f"{part}_text.jsonl")
    )
    files = find(config.model, paths)
    assert files.width == 128
    assert len(load_tokenizer(run.folder / "start")) == files.vocabulary <= 512
    assert told[0].startswith("Counting")
    assert "Making a model that knows nothing yet." in told
    assert [one.id for one in list_runs(paths.runs)] == [run.id]
    assert sorted(one.name for one in paths.runs.iterdir()) == [run.id]
    assert command_for(run).splitlines() == [
        "python -m chat_app tokenizer --data talk.tsv book.txt --vocab-size 512 --out words",
        "python -m chat_app pretrain --data talk.tsv book.txt --tokenizer words --size nano --out model --epochs 6",
    ]


def test_nothing_is_left_where_it_was_stopped(paths: Paths, tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("It was a dark night, and the shop was closed.\n\n" * 100)

    def stop(now: Progress) -> None:
        if now.message.startswith("Writing"):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        prepare_from_scratch(CONFIG, DataSource(), (book,), paths, progress=stop)
    assert not list(paths.runs.iterdir())
