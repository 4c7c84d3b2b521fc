"""Runs as a collection: found, named, weighed, deleted, compared; and what can follow one of them."""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from chat_app.cli import main
from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.data.readers import ReadingOptions
from chat_app.data.source import DataSource, HubData
from chat_app.errors import RunError, SettingError
from chat_app.models.model_card import export_card, run_card
from chat_app.runs import catalog as collection
from chat_app.runs.compare import best_evaluation, check_count, list_differences, loss_curve
from chat_app.runs.run import Run
from chat_app.training.follow_up_runs import give_more_epochs, with_half_the_rate
from chat_app.training.pipeline import choose_sample_prompts, train_run
from chat_app.training.prepare import prepare_run
from chat_app.training.recipe import command_for
from chat_app.training.sample_prompts import parse_questions


def test_a_run_is_found_by_every_word(prepare: Callable[..., Run]) -> None:
    first, second = prepare("first"), prepare("second")
    second.change(model="/secret/place/gpt2")
    first.note(title="Tea Shop", files=["shop.tsv"])
    runs = [first, second]
    assert collection.search(runs, "") == runs
    assert collection.search(runs, "TEA shop.tsv queued") == [first]
    assert collection.search(runs, "gpt2") == [second]
    assert collection.search(runs, "secret") == []  # Of a folder only its end is searched.
    assert collection.search(runs, "tea gpt2") == []


def test_a_title_is_one_line_and_the_id_stays(prepare: Callable[..., Run]) -> None:
    run = prepare("run")
    assert collection.rename(run, "  My \n first ") == "My first"
    assert (collection.get_title(run), run.id) == ("My first", "run")
    with pytest.raises(RunError, match="too long"):
        collection.rename(run, "x" * 81)
    collection.rename(run, "")
    assert collection.get_title(run) == ""
    run.set_state("running")
    with run.lock(), pytest.raises(RunError, match="learning"):
        collection.rename(run, "now")


def test_only_a_run_that_nobody_needs_is_deleted(prepare: Callable[..., Run]) -> None:
    run = prepare("run")
    with pytest.raises(RunError, match="waits for its turn"):
        collection.delete(run)
    run.set_state("running")
    with run.lock(), pytest.raises(RunError, match="is learning"):
        collection.delete(run)
    run.set_state("stopped")
    run.model.mkdir()
    (run.model / "model.safetensors").write_bytes(b"x" * 1000)
    held = collection.measure_contents(run)
    assert (held.model_bytes, held.checkpoints, held.conversations) == (1000, 0, 20)
    assert held.all_bytes > 1000
    collection.delete(run)
    assert not run.folder.exists()


def test_runs_beside_each_other_show_only_what_differs(prepare: Callable[..., Run]) -> None:
    one, other = prepare("one"), prepare("other", epochs=3, method="lora")
    one.append("metrics.jsonl", {"step": 5, "valid_loss": 1.5})
    one.append("metrics.jsonl", {"step": 6, "train_loss": 1.0})
    other.append("metrics.jsonl", {"step": 5, "train_loss": 2.0})
    rows = {row.name: row.values for row in list_differences([one, other])}
    assert rows == {
        "Best validation loss": ("1.5000 nats a token, at step 5", "-"),
        "Steps done": ("0", "0"),
        "Epochs": ("2", "3"),
        "Method": ("automatic", "lora"),
    }
    assert (loss_curve(one), loss_curve(other)) == ([(5, 1.5)], [(5, 2.0)])
    other.change(model="/home/owner/gpt2")
    assert "Start from" in {row.name for row in list_differences([one, other])}
    named = {row.name: row.values for row in list_differences([one, other], lambda name: Path(name).name)}
    assert named["Start from"] == ("start", "gpt2")
    for count in (0, 1, 9):
        with pytest.raises(RunError):
            check_count(count)


def test_the_model_before_the_training_is_no_result_of_it(prepare: Callable[..., Run]) -> None:
    better, worse = prepare("better"), prepare("worse")
    for step, good, bad in ((0, 2.0, 1.0), (5, 1.5, 1.3), (10, 1.6, 1.4)):
        better.append("metrics.jsonl", {"step": step, "valid_loss": good})
        worse.append("metrics.jsonl", {"step": step, "valid_loss": bad})
    assert best_evaluation(better.metrics()) == (5, 1.5)
    assert best_evaluation(worse.metrics()) == (5, 1.3)
    assert best_evaluation([{"step": 0, "valid_loss": 1.0}]) is None
    rows = {row.name: row.values for row in list_differences([better, worse])}
    assert rows["Validation loss before"] == ("2.0000", "1.0000")
    assert rows["Best validation loss"] == (
        "1.5000 nats a token, at step 5",
        "1.3000 nats a token, at step 5, worse than before the training",
    )
    card = export_card(worse)
    assert "| validation loss before | 1.0000 nats a token |" in card
    assert "| best validation loss | 1.3000 nats a token, at step 5, worse than before the training |" in card


def test_a_file_name_does_not_break_the_table_of_a_card() -> None:
    card = run_card(TrainConfig(model="a|b"), {"files": ["talk | one.tsv", "b\n| c.tsv"]}, {"step": 3})
    assert "| files | talk \\| one.tsv, b \\| c.tsv |\n" in card
    assert "| started from | a\\|b |\n" in card
    assert "| validation loss | not measured |\n" in card


def test_more_epochs_go_on_where_it_ended(prepare: Callable[..., Run], paths: Paths) -> None:
    run = prepare("run", rehearse="off")
    with pytest.raises(RunError, match="not ended"):
        give_more_epochs(run)
    run.set_state("failed")
    with pytest.raises(RunError, match="go on from"):
        give_more_epochs(run)
    train_run(run, paths)
    before = run.state()
    assert give_more_epochs(run).epochs == 4
    assert run.state().status == "stopped"
    train_run(run, paths)
    assert (run.state().status, run.state().step) == ("done", 2 * before.step)


def test_half_the_rate_is_a_new_run_of_the_same(prepare: Callable[..., Run], paths: Paths) -> None:
    run = prepare("run", rate_factor=0.4)
    run.note(by="ann", questions=["Who?"], plan={"words": "of the old one"}, precision="float32")
    start = run.folder / "start"
    start.mkdir()
    (start / "config.json").write_text("{}")
    run.change(model=str(start))
    new = with_half_the_rate(run, paths)
    assert (new.config().rate_factor, run.config().rate_factor) == (0.2, 0.4)
    assert new.config().model == str(new.folder / "start")
    assert (new.folder / "start" / "config.json").exists()
    about = new.about()
    assert (about["by"], about["questions"], about["after"]) == ("ann", ["Who?"], "run")
    assert not {"plan", "precision"} & set(about)
    for name in ("train.jsonl", "valid.jsonl"):
        assert (new.data / name).read_bytes() == (run.data / name).read_bytes()
    run.change(rate_factor=0.015)
    with pytest.raises(RunError, match="as low as"):
        with_half_the_rate(run, paths)


def test_questions_are_one_a_line_each_once_and_not_too_many() -> None:
    assert parse_questions(" Who are you?\n\nWhere?\r\nWhere?\n") == ("Who are you?", "Where?")
    assert parse_questions(["a", "b\nc"]) == ("a", "b", "c")
    assert parse_questions("") == ()
    for wrong in ("\n".join(map(str, range(13))), "x" * 301):
        with pytest.raises(SettingError):
            parse_questions(wrong)


def test_pinned_questions_are_what_the_model_is_asked(prepare: Callable[..., Run]) -> None:
    run = prepare("run")
    assert len(choose_sample_prompts(run)) == 4
    run.note(questions=["Who are you?", "Where?"])
    assert [[turn.text for turn in one.turns] for one in choose_sample_prompts(run)] == [["Who are you?"], ["Where?"]]


def test_the_command_of_a_run_is_understood_again(prepare: Callable[..., Run], paths: Paths) -> None:
    wanted = DataSource(
        options=ReadingOptions(columns=("1=context", "it's=reply"), pause=30), repairs=frozenset({"spaces", "html"})
    )
    run = prepare("run")
    run.note(files=["a b.tsv"], reading=wanted.to_flags(), questions=["Who's there?"])
    words = shlex.split(command_for(run))
    assert words[:6] == ["python", "-m", "chat_app", "train", "--data", "a b.tsv"]
    columns = ["--columns", "1=context", "--columns", "it's=reply", "--pause", "30"]
    assert words[-11:] == [*columns, "--repair", "html", "spaces", "--question", "Who's there?"]
    run.note(
        files=["dailydialog"], reading=DataSource(hub=HubData("dailydialog", "", "train")).to_flags(), questions=[]
    )
    assert command_for(run).endswith("--hub dailydialog --hub-split train")
    assert "--data" not in command_for(run)


def test_the_command_names_what_was_given_and_not_what_was_in_it(paths: Paths, tmp_path: Path) -> None:
    folder, archive = tmp_path / "chats", tmp_path / "more.zip"
    folder.mkdir()
    for name in ("a.tsv", "b.tsv"):
        (folder / name).write_text(f"Where is {name}?\tHere is {name}.\n")
    with zipfile.ZipFile(archive, "w") as file:
        file.write(folder / "a.tsv", "inside.tsv")
    run, material = prepare_run(TrainConfig(), DataSource((folder, archive)), paths)
    assert material.facts.files == ("chats/a.tsv", "chats/b.tsv", "more.zip/inside.tsv")
    assert command_for(run) == "python -m chat_app train --data chats more.zip"
    assert DataSource((folder,), names=("mine",)).given == ["mine"]
    assert DataSource(hub=HubData("owner/name", split="train")).given == ["owner/name"]
    assert DataSource(hub=HubData(str(folder))).given == ["chats"]


def test_the_command_exports_a_run_and_refuses_what_it_cannot(
    prepare: Callable[..., Run],
    paths: Paths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CHAT_APP_HOME", str(paths.home))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    run = prepare("run", rehearse="off", method="lora", max_steps=4)
    train_run(run, paths)
    for name, more in (("whole.zip", ()), ("adapter.zip", ("--adapter", "--licence", "mit"))):
        target = tmp_path / name
        assert main(["export", "--model", "run", "--out", str(target), *more]) == 0
        assert capsys.readouterr().out.strip() == str(target)
        assert target.stat().st_size > 1000
    copied = tmp_path / "copied"
    (run.folder / "adapter").rename(copied)
    assert main(["export", "--model", str(copied), "--out", str(tmp_path / "merged.zip")]) == 0
    assert main(["export", "--model", "run", "--adapter", "--out", str(tmp_path / "x.zip")]) == 2
    assert main(["export", "--model", "run@4", "--out", str(tmp_path / "x.zip")]) == 2
    assert main(["push", "--model", "run", "--name", "me/mine"]) == 2
    assert "HF_TOKEN" in capsys.readouterr().err
    assert not (tmp_path / "x.zip").exists()
