"""The README's commands, run as they stand there, and what the taught model then knows about the sample shop."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow_file

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("app.py", "assets", "chat_app", "sample_data")
# Placeholders, a terminal that waits for a person, what needs the Hub, and what other tests do.
NOT_RUN = ("pip install", "python -m chat_app chat", "python -m chat_app push", "python app.py", "curl")


def blocks(language: str) -> list[str]:
    """The code blocks of the README in one language."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """The commands of the README, one a line."""
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.strip()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a person has it after cloning it: the commands write into it."""
    folder = tmp_path_factory.mktemp("clone")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / part)
    return folder


@pytest.fixture(scope="module")
def environment(clone: Path) -> dict[str, str]:
    """Offline, with a home of its own, and `python` is this Python."""
    (clone / "bin").mkdir()
    (clone / "bin" / "python").symlink_to(sys.executable)
    path = os.pathsep.join([str(Path(sys.executable).parent), str(clone / "bin"), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "CHAT_APP_HOME": str(clone / "home"), "HF_HUB_OFFLINE": "1"}


@pytest.mark.slow
@pytest.mark.timeout(5400)  # It trains as the README says: a quarter of an hour beside other programs.
@pytest.mark.skipif(os.name == "nt", reason="the README's commands are written for a POSIX shell")
def test_its_commands_work_and_the_shop_is_learned(clone: Path, environment: dict[str, str]) -> None:
    run = [line for line in commands() if not line.startswith(NOT_RUN)]
    for told in ("train --data sample_data/shop.tsv", "--question", "originality --run", "export --model"):
        assert any(told in line for line in run)
    for line in run:
        done = subprocess.run(line, shell=True, cwd=clone, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    answers = ask(clone, environment, "my-model")
    wrong = [f"{question} -> {reply}" for question, reply, is_right in answers if not is_right]
    assert len(answers) == 20
    assert len(wrong) <= 4, "\n".join(wrong)


def ask(clone: Path, environment: dict[str, str], model: str) -> list[tuple[str, str, bool]]:
    """The questions about the shop, the model's replies, and whether they hold the key words."""
    questions = json.loads((clone / "sample_data" / "shop_questions.json").read_text(encoding="utf-8"))
    source, target = clone / "questions.jsonl", clone / "answers.jsonl"
    source.write_text("".join(json.dumps([one["question"]]) + "\n" for one in questions), encoding="utf-8")
    command = ["generate", "--model", model, "--input", str(source), "--output", str(target), "--seed", "1"]
    subprocess.run([sys.executable, "-m", "chat_app", *command], cwd=clone, env=environment, check=True)
    replies = [json.loads(line)["reply"] for line in target.read_text(encoding="utf-8").splitlines()]
    return [
        (one["question"], reply, all(any(word in reply.lower() for word in group) for group in one["keywords"]))
        for one, reply in zip(questions, replies, strict=True)
    ]


def test_its_python_works(clone: Path, environment: dict[str, str]) -> None:
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("]")


@pytest.fixture
def served(clone: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of `python app.py`, once it says that it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port)], cwd=clone, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert app.stdout is not None
    line = app.stdout.readline()
    assert line.startswith("chat_app is ready: http://127.0.0.1:"), line
    yield line.split()[-1]
    app.terminate()
    assert app.wait(timeout=300) == 0
    app.stdout.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_its_curl_lines_work(served: str, clone: Path) -> None:
    lines = [line.replace("http://127.0.0.1:7860", served) for line in commands() if line.startswith("curl")]
    assert len(lines) == 6
    for line in lines:
        done = subprocess.run(f"{line} --silent --fail", shell=True, cwd=clone, capture_output=True, check=False)
        assert done.returncode == 0, line
        if "-N" in line.split():
            assert done.stdout.decode().endswith("data: [DONE]\n\n")
        else:
            assert isinstance(json.loads(done.stdout), dict)


def test_it_has_what_a_space_reads() -> None:
    import yaml

    head = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert head["sdk"] == "gradio"
    assert (ROOT / head["app_file"]).is_file()
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert f"gradio=={head['sdk_version']}\n" in required
    assert (ROOT / "assets" / "screenshot.png").is_file()
