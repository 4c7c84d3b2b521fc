"""The wheel: what is in it, and that it works where it is installed, from any folder and without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from chat_app._version import __version__
from chat_app.runs.run import Run

ROOT = Path(__file__).resolve().parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]

# Trains a queued run as the server does, in a child process, and prints how it ended.
QUEUE = """
import sys, time
from pathlib import Path
from chat_app.config.paths import Paths
from chat_app.runs.run import Run
from chat_app.training.job_queue import Jobs

home, folder = map(Path, sys.argv[1:])
run, jobs = Run(folder), Jobs(Paths(home))
jobs.submit(run)
while run.state().status not in ("done", "failed", "interrupted", "stopped"):
    time.sleep(0.1)
jobs.close()
print(run.state().status)
"""


@dataclass(frozen=True)
class Installed:
    """An environment that has the wheel.

    Attributes:
        scripts: the folder of its interpreter and console commands.
        elsewhere: the folder that commands run in. Nothing of the project is in it.
    """

    scripts: Path
    elsewhere: Path

    def run(self, program: str, *arguments: str) -> str:
        """What a program of this environment prints. If it fails, the assertion shows its standard error."""
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"CHAT_APP_HOME": str(self.elsewhere / "home"), "HF_HUB_OFFLINE": "1"}
        environment["CHAT_APP_KERNELS"] = "off"  # Compiling them would take longer than all of this.
        command = [str(self.scripts / program), *arguments]
        done = subprocess.run(
            command, cwd=self.elsewhere, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([*PIP, "wheel", *options, str(ROOT)], check=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A fresh environment with the wheel. It borrows what the wheel depends on from the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    options = ["--no-deps", "--no-index", str(wheel)]
    subprocess.run([*PIP, "--python", str(scripts / "python"), "install", *options], check=True)
    (elsewhere := folder / "elsewhere").mkdir()
    made = Installed(scripts, elsewhere)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(made.run("python", "-c", code).strip())
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n", encoding="utf-8")
    return made


def test_the_wheel_has_the_starter_and_the_samples_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    samples = {f"chat_app/sample_data/{path.name}" for path in (ROOT / "sample_data").iterdir()}
    starter = {f"chat_app/assets/starter/{path.name}" for path in (ROOT / "assets" / "starter").iterdir()}
    assert samples | starter <= set(names)
    assert {name.split("/")[0] for name in names} == {"chat_app", f"chat_app-{__version__}.dist-info"}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".png", ".sh"))]


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in (ROOT / "chat_app").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert files
    assert not [path for path in files if path.relative_to(ROOT).as_posix() not in names]


def test_the_console_command_answers(installed: Installed) -> None:
    assert installed.run("chat_app", "--version") == f"chat_app {__version__}\n"
    shown = installed.run("chat_app", "--help")
    assert all(command in shown for command in ("serve", "train", "chat"))
    assert installed.run("python", "-m", "chat_app", "--help") == shown


def test_the_starter_is_listed_and_replies(installed: Installed) -> None:
    assert "starter" in installed.run("chat_app", "models")
    (installed.elsewhere / "asked.jsonl").write_text('["Hello, how are you?"]\n', encoding="utf-8")
    installed.run("chat_app", "generate", "--input", "asked.jsonl", "--output", "answered.jsonl", "--seed", "1")
    assert json.loads((installed.elsewhere / "answered.jsonl").read_text(encoding="utf-8"))["reply"]


def test_the_page_finds_its_files(installed: Installed) -> None:
    code = """
import chat_app
from chat_app import ConversationModel
from chat_app.config.paths import Paths
from chat_app.server.app import FRAMES
from chat_app.ui.components.theme import page_arguments

shown, paths = page_arguments(), Paths.default()
files = [*shown["css_paths"], shown["favicon_path"], FRAMES, paths.samples / "shop.tsv", paths.starter / "config.json"]
print(chat_app.__version__, ConversationModel.__name__, chat_app.__file__, *files, sep="\\n")
"""
    version, model, *files = installed.run("python", "-c", code).splitlines()
    assert (version, model) == (__version__, "ConversationModel")
    assert len(files) == 6
    for file in map(Path, files):
        assert file.is_file()
        assert installed.scripts.parent in file.parents


def test_a_training_process_starts(installed: Installed, prepare: Callable[..., Run]) -> None:
    run = prepare("queued", max_steps=1)
    home = run.folder.parent.parent
    assert installed.run("python", "-c", QUEUE, str(home), str(run.folder)) == "done\n", run.log.read_text()
