"""A training written down: the file and the command line do the same again."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from chat_app.cli import main
from chat_app.config import TrainConfig, from_mapping
from chat_app.errors import DataError, SettingError
from chat_app.reading import write_jsonl
from chat_app.recipe import FILE, command_of, read_recipe, recipe_of
from chat_app.runs import Run, list_runs
from tests.conftest import reading_of

CONFIG = TrainConfig(model="my model", epochs=3, learning_rate=0.000125, method="lora", patience=0)


def test_the_command_holds_what_differs_and_is_quoted() -> None:
    command = command_of(CONFIG, ["a file.tsv", "b.jsonl"], "it's.tsv")
    assert command == (
        "python -m chat_app train --data 'a file.tsv' b.jsonl --valid 'it'\"'\"'s.tsv' --model 'my model' --epochs 3 "
        "--learning-rate 0.000125 --method lora --patience 0"
    )
    assert command_of(TrainConfig(), ["a.tsv"]) == "python -m chat_app train --data a.tsv"


def test_the_recipe_gives_the_settings_back(tmp_path: Path) -> None:
    for name in ("ä file.tsv", "v.tsv"):
        (tmp_path / name).touch()
    (tmp_path / "train.yaml").write_text(recipe_of(CONFIG, ["ä file.tsv"], "v.tsv"), encoding="utf-8")
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
    again = shlex.split(command_of(second.config(), [data]))
    assert again[:4] == ["python", "-m", "chat_app", "train"]
    assert main([*again[3:], "--run", str(tmp_path / "third")]) == 0
    assert Run(tmp_path / "third").config() == first.config()
    capsys.readouterr()
    assert main(["train", "--data", data, "--lora", "--method", "full"]) == 2
    assert "disagree" in capsys.readouterr().err
