"""A training written down: the file and the command line do the same again."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from chat_app.cli import main
from chat_app.config.fields import from_mapping
from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.data.readers import ReadingOptions
from chat_app.data.source import DataSource, HubData
from chat_app.data.writers import write_jsonl
from chat_app.errors import DataError, SettingError
from chat_app.runs.run import Run, list_runs
from chat_app.training.follow_up_runs import with_half_the_rate
from chat_app.training.recipe import FILE, build_command, build_recipe, read_besides, read_recipe, write_recipe
from tests.conftest import reading_of

pytestmark = pytest.mark.slow_file

CONFIG = TrainConfig(model="my model", epochs=3, learning_rate=0.000125, method="lora", patience=0)


def test_the_command_holds_what_differs_and_is_quoted() -> None:
    command = build_command(CONFIG, ["a file.tsv", "b.jsonl"], "it's.tsv")
    assert command == (
        "python -m chat_app train --data 'a file.tsv' b.jsonl --valid 'it'\"'\"'s.tsv' --model 'my model' --epochs 3 "
        "--learning-rate 0.000125 --method lora --patience 0"
    )
    assert build_command(TrainConfig(), ["a.tsv"]) == "python -m chat_app train --data a.tsv"


def test_the_recipe_gives_the_settings_back(tmp_path: Path) -> None:
    for name in ("ä file.tsv", "v.tsv"):
        (tmp_path / name).touch()
    (tmp_path / "train.yaml").write_text(build_recipe(CONFIG, ["ä file.tsv"], "v.tsv"), encoding="utf-8")
    values, files, valid = read_recipe(tmp_path / "train.yaml")
    assert from_mapping(TrainConfig, values) == CONFIG
    assert files == [str(tmp_path / "ä file.tsv")]
    assert valid == str(tmp_path / "v.tsv")
    assert "# batch_size: 8" in (tmp_path / "train.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "no list of settings"),
        ("data: 3", "no list of files"),
        ("data: [3]", "no list of files"),
        ("valid: [a, b]", "Only one"),
        ("a: [", "no YAML"),
        ("a: !!python/object/apply:os.system [ls]", "no YAML"),
        ("[" * 5000, "no YAML"),
    ],
)
def test_recipes_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SettingError, match=message):
        read_recipe(tmp_path / "x.yaml")
    with pytest.raises(DataError, match="cannot be read"):
        read_recipe(tmp_path / "y.yaml")


def test_a_run_can_be_done_again_from_its_recipe(
    tmp_path: Path,
    make_folder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CHAT_APP_HOME", str(tmp_path / "home"))
    write_jsonl(reading_of(8).conversations, tmp_path / "data.jsonl")
    flags = "--max-steps 2 --device cpu --threads 1 --learning-rate 1e-3 --no-rehearse --load-8bit --lora-rank 2"
    model = make_folder("m", width=64)
    data = str(tmp_path / "data.jsonl")
    command = ["train", "--data", data, "--model", str(model), *shlex.split(flags), "--run", str(tmp_path / "first")]
    assert main(command) == 0
    first = Run(tmp_path / "first")
    assert first.config().method == "lora-8bit"
    assert main(["train", "--config", str(first.folder / FILE)]) == 0
    (second,) = list_runs(tmp_path / "home" / "runs")
    assert second.config() == first.config()
    assert [line["train_loss"] for line in second.metrics() if "train_loss" in line] == [
        line["train_loss"] for line in first.metrics() if "train_loss" in line
    ]
    assert yaml.safe_load((second.folder / FILE).read_text())["data"] == [data]
    again = shlex.split(build_command(second.config(), [data]))
    assert again[:4] == ["python", "-m", "chat_app", "train"]
    assert main([*again[3:], "--run", str(tmp_path / "third")]) == 0
    assert Run(tmp_path / "third").config() == first.config()
    capsys.readouterr()
    assert main(["train", "--data", data, "--lora", "--method", "full"]) == 2
    assert "disagree" in capsys.readouterr().err


def test_how_files_are_read_is_part_of_the_recipe(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", CONFIG, {"questions": ["Who's there?"]})
    options = ReadingOptions(columns=("they say=context", "we say=reply"), pause=30, tidy="off")
    wanted = DataSource(options=options, repairs=frozenset({"emails"}))
    write_recipe(run, ["a.csv"], wanted.to_settings())
    values, files, valid = read_recipe(run.folder / FILE)
    assert (from_mapping(TrainConfig, values), files, valid) == (CONFIG, ["a.csv"], None)
    besides = read_besides(run.folder / FILE)
    assert besides.pop("question") == ["Who's there?"]
    assert besides.pop("repair") == ["emails"]
    assert ReadingOptions(**besides) == options
    hub = DataSource(hub=HubData("dailydialog", "", "train"))
    write_recipe(run, [], hub.to_settings())
    assert read_besides(run.folder / FILE) == {
        "hub": "dailydialog",
        "hub_split": "train",
        "question": ["Who's there?"],
    }


@pytest.mark.parametrize("text", ["columns: 3", "repair: [3]", "hub: [a]", "pause: soon", "repair: nothing", "bot: 3"])
def test_what_a_recipe_says_of_reading_is_checked(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT_APP_HOME", str(tmp_path / "home"))
    (tmp_path / "a.tsv").write_text("a\tb\n")
    (tmp_path / "x.yaml").write_text(f"{text}\n" + ("" if text.startswith("hub") else "data: a.tsv\n"))
    assert main(["train", "--config", str(tmp_path / "x.yaml")]) == 2
    assert text.partition(":")[0] in capsys.readouterr().err


def test_a_command_that_reads_otherwise_does_not_take_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.yaml").write_text("columns: [a=context]\n")
    command = ["pretrain", "--data", "a", "--tokenizer", "t", "--out", "o", "--config", str(tmp_path / "x.yaml")]
    assert main(command) == 2
    assert "columns: This command has no such setting." in capsys.readouterr().err


def test_a_table_with_named_columns_is_learned_again_from_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT_APP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("chat_app.cli.train._run_to_end", lambda *_: None)
    (tmp_path / "a.csv").write_text("number,we say,they say\n1,b,a\n2,d,c\n3,f,e\n")
    command = ["train", "--data", str(tmp_path / "a.csv"), "--columns", "they say=context", "--columns", "we say=reply"]
    assert main([*command, "--question", "a?", "--run", str(tmp_path / "first"), "--no-rehearse"]) == 0
    first = Run(tmp_path / "first")
    assert main(["train", "--config", str(first.folder / FILE), "--run", str(tmp_path / "second")]) == 0
    second = Run(tmp_path / "second")
    for name in ("reading", "questions", "files"):
        assert second.about()[name] == first.about()[name]
    assert (second.data / "train.jsonl").read_bytes() == (first.data / "train.jsonl").read_bytes()
    half = with_half_the_rate(second, Paths(tmp_path / "home"))
    values, files, _ = read_recipe(half.folder / FILE)
    assert from_mapping(TrainConfig, values) == half.config()
    assert files == [str(tmp_path / "a.csv")]
    assert read_besides(half.folder / FILE)["columns"] == ["they say=context", "we say=reply"]
