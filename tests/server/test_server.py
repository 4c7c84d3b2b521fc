"""The server as a process and in parts: flags, who may come in, the page, the first model, and the end."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.server import ServerRules
from chat_app.config.training import TrainConfig
from chat_app.data.source import DataSource
from chat_app.errors import SettingError
from chat_app.runs.run import Run
from chat_app.server.app import FRAMES, build_app
from chat_app.server.auth import Accounts, Throttle
from chat_app.server.flags import add_flags, parse_rules
from chat_app.server.host_policy import HostPolicy
from chat_app.services import Services
from chat_app.training.prepare import prepare_run

pytestmark = pytest.mark.slow_file

APP = Path(__file__).resolve().parents[2] / "app.py"
SECONDS = 900.0


class App:
    """`python app.py` with its output."""

    def __init__(self, home: Path, arguments: Sequence[str], **environment: str):
        places = {"CHAT_APP_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(APP), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=home.parent,
            env={**os.environ, **places, **environment},
        )
        self.out: list[str] = []
        self.errors: list[str] = []
        self._readers = [
            threading.Thread(target=_collect, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.errors))
        ]
        for reader in self._readers:
            reader.start()

    def wait_for_address(self) -> str:
        """The address in the first line of the output."""
        end = time.monotonic() + SECONDS
        while not self.out:
            assert time.monotonic() < end, "no address"
            assert self.process.poll() is None, "".join(self.errors)
            time.sleep(0.05)
        match = re.search(r"http://\S+", self.out[0])
        assert match is not None, self.out
        return match[0]

    def end(self, how: int = signal.SIGTERM) -> int:
        """Ask it to end. Returns the exit code."""
        self.process.send_signal(how)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end. Returns the exit code."""
        try:
            code = self.process.wait(SECONDS)
        finally:
            self.process.kill()
        for reader in self._readers:
            reader.join()
        return code


def _collect(stream: Any, lines: list[str]) -> None:
    lines.extend(iter(stream.readline, ""))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def _rules(*arguments: str) -> ServerRules:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return parse_rules(parser.parse_args(arguments))


def test_the_flags_become_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert _rules() == ServerRules()
    assert not _rules().is_shared
    people = tmp_path / "people"
    rules = _rules("--host", "0.0.0.0", "--port", "0", "--auth-file", str(people), "--no-training", "--share")
    assert rules == ServerRules("0.0.0.0", 0, people, training=False, share=True)
    assert _rules("--allow-origin", "https://a.example/", "--allow-origin", "http://b:8080").origins == (
        "https://a.example",
        "http://b:8080",
    )
    assert _rules("--host", "[::1]").host == "::1"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--host", "0.0.0.0"],
        ["--host", "192.168.1.5"],
        ["--host", "::"],
        ["--host", ""],
        ["--share"],
        ["--port", "70000"],
        ["--port", "-1"],
        ["--allow-origin", "a.example"],
        ["--allow-origin", "*"],
        ["--allow-origin", "https://a.example/path"],
    ],
)
def test_flags_that_cannot_be_are_refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    with pytest.raises(SettingError):
        _rules(*arguments)


def test_a_space_listens_to_everybody_and_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "me/chat")
    rules = _rules()
    assert (rules.host, rules.port) == ("0.0.0.0", 7860)
    assert rules.is_shared


def _queued(home: Path, model: Path) -> Run:
    """A training that waits in a home, and would take long."""
    file = home.parent / "talk.tsv"
    file.write_text("".join(f"Hello number {number}\tHi, {number}!\n" for number in range(40)))
    config = TrainConfig(model=str(model), epochs=1000, patience=0, threads=1)
    run, _ = prepare_run(config, DataSource((file,)), Paths(home))
    run.note(queued=True)
    return run


@pytest.mark.slow
def test_the_app_from_its_start_to_its_end_which_interrupts_a_training_in_order(home: Path, tiny_folder: Path) -> None:
    run = _queued(home, tiny_folder)
    app = App(home, ["--port", "0", "--model", str(tiny_folder)])
    url = app.wait_for_address()
    assert app.out == [f"chat_app is ready: {url}\n"]
    assert url.startswith("http://127.0.0.1:")
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/health").json() == {"status": "ok", "model": "model"}
        page = client.get("/")
        assert page.status_code == 200
        assert "gradio" in page.text
        assert page.headers["x-content-type-options"] == "nosniff"
        body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
        assert client.post("/v1/chat/completions", json=body).json()["object"] == "chat.completion"
        assert client.get("/", headers={"host": "evil.example"}).status_code == 400
        for path in ("/gradio_api/queue/join", "/v1/chat/completions"):
            assert client.post(path, json=body, headers={"origin": "https://evil.example"}).status_code == 403
        for path in ("/file=app.py", "/gradio_api/file=app.py", f"/gradio_api/file={APP}", "/monitoring"):
            assert client.get(path).status_code in (403, 404)
        assert client.get("/docs").status_code == 200
    _check_that_a_big_upload_is_refused_unread(url)
    end = time.monotonic() + SECONDS
    while not (run.state().status == "running" and run.state().step > 0):
        assert time.monotonic() < end, run.state()
        time.sleep(0.1)
    with httpx.stream("GET", f"{url}/gradio_api/heartbeat/visitor", timeout=30):  # As an open page holds it.
        assert app.end() == 0
    state = run.state()
    assert (state.status, state.step > 0) == ("interrupted", True)
    assert any(run.checkpoints.iterdir())
    assert len(app.out) == 1
    assert "Traceback" not in "".join(app.errors)


def _check_that_a_big_upload_is_refused_unread(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {10**12}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_space_is_served_and_ends_on_ctrl_c(home: Path, tiny_folder: Path) -> None:
    names = {"SPACE_ID": "me/chat", "SPACE_HOST": "me-chat.hf.space"}
    app = App(home, ["--port", "0", "--model", str(tiny_folder)], **names)
    with httpx.Client(base_url=app.wait_for_address(), timeout=60) as client:
        for name in ("me-chat.hf.space", "10.1.2.3:7860"):
            assert client.get("/", headers={"host": name, "x-forwarded-proto": "https"}).status_code == 200
        own = {"host": "me-chat.hf.space", "origin": "https://me-chat.hf.space"}
        assert client.post("/generate", json={"context": "Hello"}, headers=own).status_code == 200
        framed = client.get("/").headers["content-security-policy"]
        assert "frame-ancestors 'self' https://huggingface.co" in framed
    assert app.end(signal.SIGINT) == 0


def test_a_model_that_was_asked_for_and_is_not_there_ends_the_app(home: Path) -> None:
    app = App(home, ["--port", "0", "--model", "no/such/folder"])
    assert app.wait() == 2
    assert app.out == []
    assert [line for line in app.errors if "no/such/folder" in line]
    assert "Traceback" not in "".join(app.errors)


class PathsWithoutStarter(Paths):
    """Of an installation from which the starter was removed."""

    @property
    def starter(self) -> Path:
        return self.home / "nothing"


def test_without_the_starter_the_page_is_served_all_the_same(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from chat_app.server import run as server
    from chat_app.server.lifetime import FirstModel, RunningServer

    services = Services(PathsWithoutStarter(home), ServerRules(training=False))
    listening = server._bind_socket("127.0.0.1", 0)
    running = RunningServer(services, FirstModel(services), {}, listening, must_load=False)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    thread = threading.Thread(target=running.run)
    thread.start()
    assert running._answers.wait(SECONDS)
    running._starter.join(SECONDS)
    assert httpx.get(f"{url}/health", timeout=30).json() == {"status": "ok", "model": None}
    assert httpx.get(url, timeout=30).status_code == 200
    running._server.should_exit = True
    thread.join()
    services.close()
    shown = capsys.readouterr()
    assert f"choose one on the page: {url}" in shown.out
    assert "starter model is missing" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "--auth-file"),
        (["--share"], "--auth-file"),
        (["--auth-file", "PEOPLE"], "line 2"),
        (["--auth-file", "missing"], "cannot be read"),
        (["--port", "TAKEN"], "Another program uses port"),
        (["--host", "no.such.host.invalid", "--auth-file", "GOOD"], "no address"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(home: Path, arguments: list[str], message: str) -> None:
    people, good = home.parent / "people", home.parent / "good"
    people.write_text("anna:secret\nbob\n")
    good.write_text("anna:secret\n")
    good.chmod(0o600)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        values = {"PEOPLE": str(people), "GOOD": str(good), "TAKEN": str(taken.getsockname()[1])}
        app = App(home, [values.get(argument, argument) for argument in arguments], SPACE_ID="")
        assert app.wait() == 2
    assert app.out == []
    assert len(app.errors) == 1
    assert message in app.errors[0]


def test_the_flags_are_explained(home: Path) -> None:
    app = App(home, ["--help"])
    assert app.wait() == 0
    text = "".join(app.out)
    for flag in ("--host", "--port", "--model", "--share", "--auth-file", "--no-training", "--allow-origin"):
        assert flag in text


def test_reading_the_flags_loads_nothing_heavy() -> None:
    script = "import sys, app; print([name for name in ('torch', 'gradio', 'fastapi') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=APP.parent, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.fixture
def make_client(home: Path, tiny_folder: Path) -> Iterator[Callable[..., TestClient]]:
    made: list[tuple[TestClient, Services]] = []

    def factory(passwords: dict[str, str] | None = None, **rules: Any) -> TestClient:
        services = Services(Paths(home), ServerRules(training=False, **rules), str(tiny_folder))
        services.models.use(str(tiny_folder), LoadConfig(precision="float32"))
        throttle = Throttle()
        accounts = Accounts(passwords or {}, None, throttle)
        app, _ = build_app(services, accounts, throttle, HostPolicy(services.rules), lambda: False)
        client = TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)
        client.__enter__()
        made.append((client, services))
        return client

    yield factory
    for client, services in made:
        client.__exit__(None, None, None)
        services.close()


def test_with_an_auth_file_everything_but_health_is_closed(
    make_client: Callable[..., TestClient], tmp_path: Path
) -> None:
    client = make_client({"anna": "secret"}, auth_file=tmp_path / "people")
    cancel = {"session_hash": "a", "fn_index": 0, "event_id": "b"}
    assert client.get("/health").status_code == 200
    assert client.get("/v1/models").status_code == 401
    assert client.get("/config").status_code == 401
    assert client.post("/gradio_api/cancel", json=cancel).status_code == 401
    assert client.get("/gradio_api/heartbeat/x").status_code == 401
    assert client.get("/gradio_api/live/x").status_code == 401
    assert '"auth_required":true' in client.get("/").text
    assert client.post("/login", data={"username": "anna", "password": "guess"}).status_code == 400
    assert client.post("/login", data={"username": "anna", "password": "secret"}).status_code == 200
    assert client.get("/config").status_code == 200
    assert client.post("/gradio_api/cancel", json=cancel).status_code == 200
    assert client.get("/gradio_api/live/x").status_code == 404
    assert client.get("/v1/models").status_code == 401  # The page's cookie is none for programs.
    assert client.get("/v1/models", auth=("anna", "secret")).status_code == 200


def test_guessing_a_password_is_slowed_down(make_client: Callable[..., TestClient], tmp_path: Path) -> None:
    client = make_client({"anna": "secret"}, auth_file=tmp_path / "people")
    guesses = [client.post("/login", data={"username": "anna", "password": str(n)}).status_code for n in range(7)]
    assert guesses == [400] * 5 + [429] * 2
    assert client.post("/login", data={"username": "anna", "password": "secret"}).status_code == 429
    assert client.get("/v1/models", auth=("anna", "secret")).status_code == 429


def test_pages_that_are_allowed_may_call(make_client: Callable[..., TestClient]) -> None:
    client = make_client(origins=("https://chat.example.org",))
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    for origin, is_allowed in (("https://chat.example.org", True), ("https://evil.example", False)):
        ahead = client.options("/generate", headers={"origin": origin, **asked})
        assert (ahead.status_code == 200) is is_allowed
        for path in ("/generate", "/gradio_api/upload"):
            answer = client.post(path, json={"context": "Hello"}, headers={"origin": origin})
            assert (answer.status_code != 403) is is_allowed
        shown = client.get("/config", headers={"origin": origin})
        assert shown.headers.get("access-control-allow-origin") == (origin if is_allowed else None)


def test_our_script_comes_before_gradios_in_the_page_and_nowhere_else(make_client: Callable[..., TestClient]) -> None:
    client, script = make_client(), FRAMES.read_text(encoding="utf-8")
    page = client.get("/", headers={"accept-encoding": "identity"})
    assert page.text.partition("<script>")[2].strip().startswith(script)
    assert page.text.count(script) == 1
    assert int(page.headers["content-length"]) == len(page.content)
    assert client.get("/").text == page.text  # Compressed on its way.
    assert script not in client.get("/config").text


def test_the_page_keeps_nothing_in_the_browser_and_links_nowhere(make_client: Callable[..., TestClient]) -> None:
    config = make_client().get("/config").json()
    assert config["run_history"] is False
    assert config["footer_links"] == []
    assert config["analytics_enabled"] is False
    assert config["show_error"] is False


def test_an_upload_is_taken_and_too_many_files_are_not(make_client: Callable[..., TestClient]) -> None:
    client = make_client(upload_bytes=2**20)
    assert client.post("/gradio_api/upload", files={"files": ("a.tsv", b"Hello\tHi\n")}).status_code == 200
    assert client.post("/gradio_api/upload", files={"files": ("a.tsv", b"x" * 2**21)}).status_code == 413
    many = [("files", (f"{number}.tsv", b"x")) for number in range(21)]
    assert client.post("/gradio_api/upload", files=many).status_code == 413
