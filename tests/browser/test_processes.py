"""In a real Chromium: the page outlives the process of its model, and its own process stays light."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.browser.test_page import (  # noqa: F401 - the fixtures are found by their names.
    ROOT,
    browser,
    expect,
    model_folder,
    open_page,
    pytestmark,
    say,
    shorten_replies,
)
from tests.server.api_server import wait_for

HEAVY = {"torch", "transformers", "numba", "llvmlite", "peft", "accelerate", "bitsandbytes", "datasets"}
MOST_BYTES = 450 * 2**20


class ObservedApp:
    """The app in a process that tells about itself.

    Args:
        folder: for its home and its report.
    """

    def __init__(self, folder: Path, model: Path):
        self._report = folder / "report.json"
        environment = {**os.environ, "CHAT_APP_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-u", "-m", "tests.browser.observed_app", str(self._report)]
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--model", str(model)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        found = re.search(r"ready: (http://\S+)", self.process.stdout.readline())
        assert found
        self.address = found[1]

    def tell(self) -> dict[str, Any]:
        """Its modules and its memory."""
        self._report.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        wait_for(self._report.exists)
        told: dict[str, Any] = json.loads(self._report.read_text())
        return told

    def workers(self) -> list[psutil.Process]:
        """The processes of its models."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in children if "spawn_main" in " ".join(one.cmdline())]

    def close(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait()


@pytest.fixture(scope="module")
def app(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObservedApp]:  # noqa: F811
    app = ObservedApp(tmp_path_factory.mktemp("observed"), model_folder)
    yield app
    app.close()


@pytest.fixture(scope="module")
def address(app: ObservedApp) -> str:
    return app.address


def test_a_model_that_is_killed_in_the_middle_of_a_reply(open_page: Callable[[], Any], app: ObservedApp) -> None:  # noqa: F811
    page = open_page()
    [worker] = app.workers()
    page.fill("#message textarea", "Hello!")
    page.press("#message textarea", "Enter")
    said = page.locator("#conversation .turn.assistant .said:not(.waiting)")
    expect(said).not_to_be_empty()
    worker.kill()
    note = page.locator("#conversation .turn.assistant .note")
    expect(note).to_contain_text("It is being loaded again; send your message again.")
    assert said.inner_text().strip()
    expect(page.locator("#conversation .turns")).to_have_attribute("aria-busy", "false")
    shorten_replies(page, 12)
    reply = say(page, "And now?", 2)
    expect(reply.locator(".note")).to_contain_text("12 tokens")
    assert [one.pid for one in app.workers()] != [worker.pid]


def test_the_process_of_the_page_imports_nothing_heavy(
    open_page: Callable[[], Any],  # noqa: F811
    app: ObservedApp,
    tmp_path: Path,
) -> None:
    (tmp_path / "four.tsv").write_text("".join(f"question {n}\tanswer {n}\n" for n in range(4)), encoding="utf-8")
    page = open_page()
    shorten_replies(page, 12)
    say(page, "Hello!", 1)
    page.get_by_role("tab", name="Models").click()
    expect(page.locator("#model-card")).to_contain_text("tokens")
    page.fill("#model-name input", "starter")
    page.press("#model-name input", "Enter")
    expect(page.locator("#estimate")).to_contain_text("of memory")
    page.get_by_role("tab", name="Teach").click()
    page.set_input_files("#files input[type=file]", tmp_path / "four.tsv")
    expect(page.locator("#reading")).to_contain_text("4")
    page.get_by_role("tab", name="Evaluate").click()
    expect(page.locator("#evaluate-after input")).not_to_have_value("")
    page.set_input_files("#evaluate-files input[type=file]", tmp_path / "four.tsv")
    expect(page.locator("#evaluate-files table")).to_contain_text(re.compile(r"four\s*\.tsv"))
    page.click("#evaluate-start")
    expect(page.locator("#evaluate-report tbody tr")).to_have_count(8)
    told = app.tell()
    assert told["pid"] == app.process.pid
    assert not HEAVY & set(told["modules"])
    assert told["bytes"] < MOST_BYTES
