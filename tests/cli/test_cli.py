"""The command line: results on standard output, one clear line for a mistake, exit codes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest

from chat_app.cli import main
from tests.tokenization.test_chat_formats import gpt2_files

pytestmark = pytest.mark.slow_file

ROOT = Path(__file__).resolve().parents[2]
SHOP = ROOT / "sample_data" / "shop.tsv"
MISTAKES = ROOT / "sample_data" / "shop_with_mistakes.tsv"


class Done(NamedTuple):
    """What a command has written."""

    stdout: str
    stderr: str


class Shell:
    """Runs commands with a home folder of their own: in this process, which has loaded already what takes seconds to
    load, or as a process."""

    def __init__(self, home: Path):
        self.environment = {"CHAT_APP_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def __call__(self, *arguments: str, typed: str = "", code: int = 0) -> Done:
        out, errors = io.StringIO(), io.StringIO()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with (
            mock.patch.dict(os.environ, self.environment),
            mock.patch("sys.stdin", io.StringIO(typed)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
        ):
            try:
                left = main(arguments)
            except SystemExit as end:  # The flags are wrong, or were asked for.
                left = end.code
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        return self._checked(Done(out.getvalue(), errors.getvalue()), left, code)

    def process(self, *arguments: str, typed: str = "", code: int = 0) -> Done:
        """The same as a process."""
        done = subprocess.run(
            [sys.executable, "-m", "chat_app", *arguments], input=typed, capture_output=True, text=True,
            encoding="utf-8", cwd=ROOT, env={**os.environ, **self.environment}, check=False,
        )  # fmt: skip
        return self._checked(Done(done.stdout, done.stderr), done.returncode, code)

    @staticmethod
    def _checked(done: Done, left: Any, code: int) -> Done:
        assert left == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments).stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "home")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shell, Path]:
    """A tokenizer, a new model and a taught one, all made by commands: the folder that holds them."""
    folder = tmp_path_factory.mktemp("made")
    shell = Shell(folder / "home")
    shell("tokenizer", "--data", str(SHOP), "--vocab-size", "600", "--out", str(folder / "tokenizer"))
    shell(
        "pretrain", "--data", str(SHOP), "--tokenizer", str(folder / "tokenizer"), "--size", "nano",
        "--max-steps", "40", "--batch-size", "16", "--learning-rate", "0.01", "--out", str(folder / "base"),
    )  # fmt: skip
    shell.process(
        "train", "--data", str(SHOP), "--model", str(folder / "base"), "--out", str(folder / "taught"),
        "--epochs", "1", "--run", str(folder / "run"),
    )  # fmt: skip
    return shell, folder


def test_models_are_made_from_nothing(made: tuple[Shell, Path]) -> None:
    shell, folder = made
    for name in ("config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "chat_format.json"):
        assert (folder / "taught" / name).is_file()
    assert "chat_template" in (folder / "taught" / "tokenizer_config.json").read_text()
    states = [run["status"] for run in shell.json("runs", "--json")]
    assert states == ["done"]
    assert json.loads((folder / "run" / "state.json").read_text())["status"] == "done"
    assert json.loads((folder / "run" / "config.json").read_text())["epochs"] == 1


def test_chat_in_the_terminal(made: tuple[Shell, Path]) -> None:
    shell, folder = made
    for run, leave in ((shell, "Abort!\n"), (shell, "q\n"), (shell.process, "")):
        done = run("chat", "--model", str(folder / "taught"), "--max-new-tokens", "5", typed=f"Hello\nHi\n{leave}")
        assert len(done.stdout.rstrip("\n").split("\n")) == 2 or done.stdout.count("\n") >= 2


def test_generate_answers_every_line(made: tuple[Shell, Path], tmp_path: Path) -> None:
    shell, folder = made
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [
        '{"turns": ["When do you open?"], "id": 7}',
        '["a", "b", "c"]',
        '{"messages": [{"role": "user", "content": "é"}]}',
    ]
    source.write_text("\n".join(lines), encoding="utf-8")
    shell(
        "generate", "--model", str(folder / "taught"), "--input", str(source), "--output", str(target),
        "--max-new-tokens", "6", "--temperature", "0",
    )  # fmt: skip
    answers = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert len(answers) == 3
    assert answers[0]["id"] == 7
    assert all(isinstance(answer["reply"], str) for answer in answers)


def test_evaluate_prints_the_agreed_names(made: tuple[Shell, Path]) -> None:
    shell, folder = made
    found = shell.json(
        "evaluate", "--model", str(folder / "taught"), "--data", str(SHOP), "--learn", "all", "--json", "--replies", "3"
    )
    assert {
        "perplexity", "bits_per_byte", "bleu", "distinct_1", "distinct_2", "reward", "penalty", "conversations",
        "learned_tokens",
    } <= found.keys()  # fmt: skip
    assert found["conversations"] == 462
    assert 1 < found["perplexity"] < 600
    assert 0 < found["bits_per_byte"] < 8


def test_inspect_tells_the_lines(shell: Shell) -> None:
    found = shell.json("inspect", str(MISTAKES), "--json")
    assert found["conversations"] == 20
    assert found["turns"] == 40
    assert [problem["line"] for problem in found["problems"]] == [6, 11, 17, 22]
    assert all(problem["reason"] and problem["advice"] and problem["file"] for problem in found["problems"])
    shown = shell.process("inspect", str(MISTAKES)).stdout
    assert "line 11" in shown


@pytest.mark.parametrize(
    ("name", "turns", "ids", "types"),
    [
        ("sep", ["Hello", "How are you"], [50256, 15496, 50256, 2437, 389, 345, 50256], [0, 0, 1, 1, 1, 1, 0]),
        ("eos", ["Hello"], [15496, 50256], None),
    ],
)
def test_encode_prints_what_a_model_sees(
    shell: Shell, name: str, turns: list[str], ids: list[int], types: list[int] | None
) -> None:
    found = shell.json("encode", "--tokenizer", str(gpt2_files()), "--format", name, "--turns", json.dumps(turns))
    assert found == {"input_ids": ids, "token_type_ids": types, "attention_mask": [1] * len(ids)}


def test_encode_with_labels(shell: Shell) -> None:
    found = shell.json(
        "encode", "--tokenizer", str(gpt2_files()), "--format", "eos", "--turns", '["Hello", "Hi"]', "--train"
    )
    assert found["labels"] == [-100, -100, 17250, 50256]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["inspect", "missing.tsv"], "missing.tsv"),
        (["train", "--data", "missing.tsv"], "missing.tsv"),
        (["train"], "--data"),
        (["train", "--data", str(SHOP), "--epochs", "-1"], "epochs"),
        (["train", "--data", str(SHOP), "--learn", "nothing"], "learn"),
        (["train", "--resume", "no-such-run"], "no-such-run"),
        (["chat", "--model", "no/such/model/at/all"], "no/such/model"),
        (["chat", "--model", "someone/not-here-xyz"], "someone/not-here-xyz"),
        (["evaluate", "--model", str(ROOT), "--data", str(SHOP)], "config.json"),
        (["encode", "--tokenizer", str(ROOT), "--format", "sep", "--turns", '["a"]'], "tokenizer"),
        (["encode", "--tokenizer", "x", "--format", "sep", "--turns", "[1]"], "--turns"),
        (["tokenizer", "--data", str(SHOP), "--vocab-size", "9", "--out", "x"], "vocab-size"),
        (["chat", "--temperature", "9"], "temperature"),
    ],
)
def test_a_mistake_is_one_clear_line(shell: Shell, arguments: list[str], sentence: str) -> None:
    done = (shell.process if arguments == ["train"] else shell)(*arguments, code=2)
    assert sentence in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("chat_app:")]) == 1
    assert done.stdout == ""


def test_settings_come_from_a_file(made: tuple[Shell, Path], tmp_path: Path) -> None:
    shell, folder = made
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"model: {folder / 'base'}\nmax-steps: 3\nlearning_rate: 0.001\n")
    shell("train", "--data", str(SHOP), "--config", str(settings), "--batch-size", "4", "--run", str(tmp_path / "run"))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["max_steps"], config["learning_rate"], config["batch_size"]) == (3, 0.001, 4)
    settings.write_text("lerning_rate: 1")
    assert "lerning_rate" in shell("train", "--data", str(SHOP), "--config", str(settings), code=2).stderr


def test_models_lists_what_can_be_used(shell: Shell) -> None:
    found = shell.json("models", "--json")
    assert "starter" in [one["name"] for one in found["models"]]
    assert "microsoft/DialoGPT-medium" in [one["name"] for one in found["recommended"]]


def test_models_import_refuses_in_one_line(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "tf_model.h5").write_bytes(b"")
    refused = shell("models", "import", str(tmp_path), code=2).stderr
    assert "TensorFlow" in refused
    assert "Traceback" not in refused


def test_help_names_every_command(shell: Shell) -> None:
    shown = shell.process("--help").stdout
    commands = ["serve", "train", "chat", "generate", "evaluate", "inspect", "encode", "tokenizer", "pretrain"]
    assert all(command in shown for command in [*commands, "models", "runs"])
    assert "--learning-rate" in shell("train", "--help").stdout
