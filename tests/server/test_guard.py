"""Who may call, how much they may send, how often they may guess a password."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from chat_app.config.server import ServerRules
from chat_app.errors import DataError
from chat_app.server.auth import Accounts, AuthenticationError, Throttle, TooManyAttemptsError, read_passwords
from chat_app.server.guard import MAX_BODY_BYTES, MAX_FILES_PER_REQUEST, Guard
from chat_app.server.host_policy import HostPolicy
from chat_app.server.upload_quota import UploadQuota

pytestmark = pytest.mark.dependencies

MEGABYTE = 2**20


class Clock:
    """A time that only moves when told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def _echo(request: Request) -> Response:
    """Reads everything and tells what it was told."""
    body = await request.body()
    seen = [request.headers.get(name, "") for name in ("x-forwarded-host", "x-gradio-server")]
    return PlainTextResponse(f"{len(body)} {seen}")


async def _login(request: Request) -> Response:
    return PlainTextResponse("", 200 if b"right" in await request.body() else 400)


def _client(rules: ServerRules, **more: Any) -> TestClient:
    methods = ["GET", "POST"]
    routes = [Route("/login", _login, methods=methods), Route("/{rest:path}", _echo, methods=methods)]
    guard = Guard(Starlette(routes=routes), rules, HostPolicy(rules), Throttle(clock=Clock()), **more)
    return TestClient(guard, base_url="http://127.0.0.1:7860")


@pytest.mark.parametrize(
    ("header", "is_ours"),
    [
        ("127.0.0.1:7860", True),
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("[::1]:7860", True),
        ("chat.example.org", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("192.168.1.5", False),
        ("a@localhost", False),
        ("localhost:x", False),
        ("localhost/", False),
        ("", False),
        (None, False),
    ],
)
def test_only_names_of_this_server_are_answered(header: str | None, is_ours: bool) -> None:
    assert HostPolicy(ServerRules(origins=("https://chat.example.org",))).accepts_host(header) is is_ours


def test_a_server_for_all_addresses_takes_addresses_but_no_names() -> None:
    host_policy = HostPolicy(ServerRules(host="0.0.0.0", auth_file=Path("x")))
    assert host_policy.accepts_host("192.168.1.5:7860")
    assert host_policy.accepts_host("[fe80::1]")
    assert not host_policy.accepts_host("rebound.example")
    host_policy.add_host("abc.gradio.live")
    assert host_policy.accepts_host("abc.gradio.live")


def test_a_space_knows_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "me/chat")
    monkeypatch.setenv("SPACE_HOST", "me-chat.hf.space, chat.example.org")
    client = _client(ServerRules(host="0.0.0.0"))
    for name in ("me-chat.hf.space", "chat.example.org", "10.0.0.7:7860", "localhost"):
        answer = client.get("/", headers={"host": name})
        assert answer.status_code == 200
        assert "https://huggingface.co" in answer.headers["content-security-policy"].split("frame-ancestors")[1]
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_an_unknown_name_is_refused_with_the_same_headers() -> None:
    answer = _client(ServerRules()).get("/", headers={"host": "evil.example"})
    assert answer.status_code == 400
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://127.0.0.1:7860", 200),
        ("https://127.0.0.1:7860", 200),
        ("https://chat.example.org", 200),
        ("http://127.0.0.1:1", 403),
        ("http://localhost:7860", 403),
        ("https://evil.example", 403),
        ("https://chat.example.org.evil.example", 403),
        ("file://127.0.0.1:7860", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_other_pages_may_not_change_anything(origin: str | None, status: int) -> None:
    client = _client(ServerRules(origins=("https://chat.example.org/",)))
    headers = {} if origin is None else {"origin": origin}
    assert client.post("/gradio_api/queue/join", headers=headers).status_code == status
    assert client.get("/", headers=headers).status_code == 200


def test_callers_cannot_choose_the_addresses_that_the_page_is_told() -> None:
    client = _client(ServerRules())
    headers = {"x-forwarded-host": "evil.example", "x-gradio-server": "http://evil.example"}
    assert "evil" not in client.get("/", headers=headers).text
    assert "localhost" in client.get("/", headers={"x-forwarded-host": "localhost"}).text


@pytest.mark.parametrize("path", ["/gradio_api/proxy=https://a.hf.space", "/monitoring", "/gradio_api/deep_link?a=b"])
def test_parts_of_gradio_that_nobody_needs_are_closed(path: str) -> None:
    assert _client(ServerRules()).get(path).status_code == 404


def test_a_big_body_is_refused_before_it_is_read() -> None:
    client = _client(ServerRules(upload_bytes=8 * MEGABYTE))
    for path, most in (("/v1/chat/completions", MAX_BODY_BYTES), ("/gradio_api/upload", 8 * MEGABYTE)):
        assert client.post(path, content=b"x" * most).status_code == 200
        answer = client.post(path, content=b"x" * (most + 2**17))
        assert answer.status_code == 413
        assert "more than this server takes" in answer.text
    assert client.post("/v1/x", content=b"x" * (MAX_BODY_BYTES + 1)).json()["error"]["message"]
    assert client.post("/x", headers={"content-length": "x"}).status_code == 400


def test_a_big_body_that_does_not_tell_its_length_is_refused_on_the_way() -> None:
    client = _client(ServerRules())
    pieces = (b"x" * MEGABYTE for _ in range(5))
    assert client.post("/v1/chat/completions", content=pieces).status_code == 413


def test_a_request_brings_few_files() -> None:
    client = _client(ServerRules())

    def post(number: int) -> int:
        files = [("files", (f"{index}.txt", b"hello")) for index in range(number)]
        return client.post("/gradio_api/upload", files=files).status_code

    assert post(MAX_FILES_PER_REQUEST) == 200
    assert post(MAX_FILES_PER_REQUEST + 1) == 413


def test_what_is_uploaded_is_counted_for_hours() -> None:
    clock = Clock()
    quota = UploadQuota(per_address=3 * MEGABYTE, total=5 * MEGABYTE, seconds=3600, clock=clock)
    upload = quota.reserve("a", 2 * MEGABYTE)
    assert upload is not None
    assert quota.reserve("a", 2 * MEGABYTE) is None
    quota.settle(upload, 10)
    assert quota.reserve("a", 2 * MEGABYTE) is not None
    assert quota.reserve("b", 3 * MEGABYTE) is None
    assert quota.reserve("b", 2 * MEGABYTE) is not None
    clock.now += 3601
    assert quota.reserve("b", 3 * MEGABYTE) is not None


def test_a_visitor_who_uploads_too_much_is_told() -> None:
    client = _client(ServerRules(), quota=UploadQuota(2 * MEGABYTE, 9 * MEGABYTE, 3600))
    statuses = [client.post("/gradio_api/upload", content=b"x" * MEGABYTE).status_code for _ in range(3)]
    assert statuses == [200, 200, 413]
    assert client.post("/v1/x", content=b"x" * MEGABYTE).status_code == 200


def test_gradios_api_is_for_those_who_are_logged_in() -> None:
    client = _client(ServerRules(), is_logged_in=lambda headers: headers.get("cookie") == "yes")
    for method, path in (
        ("POST", "/gradio_api/cancel"),
        ("GET", "/gradio_api/heartbeat/x"),
        ("POST", "/gradio_api/reset"),
    ):
        assert client.request(method, path).status_code == 401
        assert client.request(method, path, headers={"cookie": "yes"}).status_code == 200
    for path in ("/", "/theme.css", "/gradio_api/startup-events", "/config"):
        assert client.get(path).status_code == 200


def test_wrong_log_ins_of_an_address_are_slowed_down() -> None:
    client = _client(ServerRules())
    assert [client.post("/login", content=b"wrong").status_code for _ in range(7)] == [400] * 5 + [429] * 2
    answer = client.post("/login", content=b"right")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 2


def test_the_wait_doubles_and_ends_and_forgets() -> None:
    clock = Clock()
    throttle = Throttle(free=2, longest=10, clock=clock)
    waits = []
    for _ in range(7):
        waits.append(throttle.wait("a"))
        throttle.failed("a")
    assert waits == [0, 0, 2, 4, 8, 10, 10]
    assert throttle.wait("b") == 0
    clock.now += 10
    assert throttle.wait("a") == 0
    throttle.succeeded("a")
    throttle.failed("a")
    assert throttle.wait("a") == 0
    for _ in range(3):
        throttle.failed("c")
    clock.now += Throttle.FORGET_SECONDS + 1
    throttle.failed("c")
    assert throttle.wait("c") == 0


def test_the_throttle_does_not_grow() -> None:
    throttle = Throttle(free=1, most=10)
    for number in range(1000):
        throttle.failed(str(number))
    assert throttle.wait("0") == 0
    assert throttle.wait("999") > 0
    assert len(throttle._tries) == 10


def test_wrong_tries_count_against_a_name_wherever_they_come_from() -> None:
    accounts = Accounts({"anna": "secret"}, None, Throttle(clock=Clock()))
    assert accounts.log_in("anna", "secret")
    assert not any(accounts.log_in("anna", guess) for guess in ("", "secre", "secrets", "SECRET", "\ud800"))
    with pytest.raises(TooManyAttemptsError):
        accounts.log_in("anna", "secret")
    assert not accounts.log_in("nobody", "")


def _basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("header", "is_let_in"),
    [
        ("Bearer key", True),
        ("bearer key", True),
        ("Bearer anna:se:cret", True),
        (_basic("anna:se:cret"), True),
        (_basic("anna:se"), False),
        (_basic("anna"), False),
        ("Bearer anna", False),
        ("Bearer ", False),
        ("Basic key", False),
        ("Basic !", False),
        ("Digest key", False),
        ("key", False),
        ("", False),
        (None, False),
    ],
)
def test_programs_show_a_key_or_a_name_and_password(header: str | None, is_let_in: bool) -> None:
    accounts = Accounts({"anna": "se:cret"}, "key", Throttle())
    if is_let_in:
        accounts.check_program(header, "address")
    else:
        with pytest.raises(AuthenticationError):
            accounts.check_program(header, "address")


def test_programs_need_nothing_on_an_open_server_and_only_the_key_where_there_is_one() -> None:
    Accounts({}, None, Throttle()).check_program(None, "address")
    with_key = Accounts({}, "key", Throttle())
    assert with_key.is_page_open
    with pytest.raises(AuthenticationError):
        with_key.check_program("Bearer :", "address")


def test_programs_that_guess_are_slowed_down() -> None:
    accounts = Accounts({}, "key", Throttle(clock=Clock()))
    for guess in range(5):
        with pytest.raises(AuthenticationError):
            accounts.check_program(f"Bearer {guess}", "address")
    with pytest.raises(TooManyAttemptsError):
        accounts.check_program("Bearer key", "address")
    accounts.check_program("Bearer key", "another")


def test_names_and_passwords_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "people"
    file.write_bytes("\ufeff# who may come\r\n\r\n anna : secret\r\nbörje:a:b # c\r\n".encode())
    assert read_passwords(file) == {"anna": "secret", "börje": "a:b # c"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"anna:x\n\nbob\n", "line 3"),
        (b"anna:\n", "line 1"),
        (b":x\n", "line 1"),
        (b"anna:x\nanna:y\n", "line 2"),
        (b"# nobody\n", "Nobody"),
        (b"", "Nobody"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"a:b\n" * 300_000, "too long"),
    ],
)
def test_a_wrong_file_of_passwords_is_explained(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "people"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_passwords(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_passwords(tmp_path / "missing")


@pytest.mark.skipif(os.name != "posix", reason="other systems have other rights")
def test_a_file_that_everybody_can_read_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "people"
    file.write_text("anna:secret\n")
    file.chmod(0o644)
    read_passwords(file)
    assert "chmod 600" in capsys.readouterr().err
    file.chmod(0o600)
    read_passwords(file)
    assert not capsys.readouterr().err
