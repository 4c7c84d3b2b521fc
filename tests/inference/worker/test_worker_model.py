"""A model in a process of its own: it replies as one in this process does, and every way to die ends in a sentence."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.errors import ChatAppError, ChildProcessDiedError, DataError, ModelNotFoundError, SettingError
from chat_app.inference.backend import ReplyEnd, ReplyEvent, ReplyRequest, TextDelta, reply
from chat_app.inference.loaded_model import load
from chat_app.inference.worker.child import run_worker
from chat_app.inference.worker.model import MAX_DEATHS, WorkerModel
from tests.inference.worker import children
from tests.server.api_server import wait_for

pytestmark = [
    pytest.mark.slow_file,
    pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system has no such signals"),
]

HELLO = Conversation.from_turns(["Hello, how are you?"])
GREEDY = SamplingConfig(temperature=0, repetition_penalty=1, max_new_tokens=16)
LONG_REPLY = ReplyRequest(HELLO, SamplingConfig(temperature=0, repetition_penalty=1, max_new_tokens=100))
SLOW = partial(children.run_slowly, 0.5)
SCRIPTED = partial(children.run_scripted, 0.05)
Make = Callable[..., WorkerModel]


@pytest.fixture
def make(saved_folder: Path, paths: Paths) -> Iterator[Make]:
    """Makes loaded models in processes of their own."""
    made: list[WorkerModel] = []

    def start(run: Any = run_worker, **more: Any) -> WorkerModel:
        made.append(WorkerModel(str(saved_folder), LoadConfig(precision="float32"), paths, run=run, **more))
        made[-1].load()
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def shared(saved_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerModel]:
    """One for tests that do it no harm."""
    home = Paths(tmp_path_factory.mktemp("shared"))
    model = WorkerModel(str(saved_folder), LoadConfig(precision="float32"), home)
    model.load()
    yield model
    model.close()


def pid_of(model: WorkerModel) -> int:
    pid = model.pid
    assert pid is not None
    return pid


def begin(model: WorkerModel) -> tuple[Generator[ReplyEvent, None, None], str]:
    """A long reply of which the first text has come."""
    events = model.stream(LONG_REPLY)
    first = next(event for event in events if isinstance(event, TextDelta))
    return events, first.text


def read_to_the_end(events: Generator[ReplyEvent, None, None]) -> ChatAppError:
    """How a reply fails."""
    rest: list[ReplyEvent] = []
    with pytest.raises(ChatAppError) as failure:
        rest.extend(events)
    assert not any(isinstance(event, ReplyEnd) for event in rest), "it must not end as if nothing had happened"
    return failure.value


class TestReplies:
    def test_they_are_those_of_a_model_in_this_process(
        self, shared: WorkerModel, saved_folder: Path, paths: Paths
    ) -> None:
        alone = load(str(saved_folder), LoadConfig(precision="float32"), paths)
        try:
            request = ReplyRequest(HELLO, GREEDY, prefix="I am", logprobs=2)
            here, there = list(alone.stream(request)), list(shared.stream(request))
            assert "".join(one.text for one in there if isinstance(one, TextDelta)) == there[-1].text  # type: ignore[union-attr]
            assert there[-1].reply_tokens == here[-1].reply_tokens > 0  # type: ignore[union-attr]
            tokens = [
                [token for one in events if isinstance(one, TextDelta) for token in one.tokens or ()]
                for events in (here, there)
            ]
            assert tokens[0] == tokens[1]
            assert all(len(token.top) == 2 for token in tokens[1])
            assert shared.description == alone.description
        finally:
            alone.close()

    def test_what_cannot_be_answered_is_the_same_error(self, shared: WorkerModel) -> None:
        with pytest.raises(DataError, match="Say something first"):
            list(shared.stream(ReplyRequest(Conversation.from_turns(["Hello", "Hi"]), GREEDY)))
        assert reply(shared, HELLO, GREEDY).reply_tokens > 0

    def test_many_at_once(self, shared: WorkerModel) -> None:
        expected = reply(shared, HELLO, GREEDY).text
        found: list[str] = []
        threads = [threading.Thread(target=lambda: found.append(reply(shared, HELLO, GREEDY).text)) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [expected] * 24

    def test_who_cancels_or_leaves_frees_the_engine(self, make: Make, tmp_path: Path) -> None:
        file = tmp_path / "requests"
        model = make(partial(children.run_observed, 0.05, file))
        cancel_event = threading.Event()
        events = model.stream(LONG_REPLY, cancel_event)
        next(events)
        left, _ = begin(model)
        wait_for(lambda: file.read_text() == "2")
        cancel_event.set()
        *_, end = events
        assert isinstance(end, ReplyEnd)
        assert end.reason == "cancelled"
        wait_for(lambda: file.read_text() == "1")
        left.close()
        wait_for(lambda: file.read_text() == "0")

    def test_a_model_that_is_not_there_and_a_setting_that_cannot_be(self, paths: Paths, saved_folder: Path) -> None:
        for name, config, expected in (
            (str(paths.home / "nothing"), LoadConfig(), ModelNotFoundError),
            (str(saved_folder), LoadConfig(device="mars"), SettingError),
        ):
            model = WorkerModel(name, config, paths)
            with pytest.raises(expected) as failure:
                model.load()
            if isinstance(failure.value, SettingError):
                assert failure.value.field == "device"
            assert model.pid is None


class TestDeaths:
    @pytest.mark.parametrize(
        ("number", "said"),
        [(signal.SIGKILL, "often that is a lack of memory"), (signal.SIGSEGV, "crashed (SIGSEGV)"),
         (signal.SIGSTOP, "did not respond")],
    )  # fmt: skip
    def test_the_reply_ends_with_a_sentence_and_the_next_message_is_answered(
        self, make: Make, number: signal.Signals, said: str
    ) -> None:
        model = make(SLOW if number == signal.SIGKILL else SCRIPTED)
        expected = reply(model, HELLO, SamplingConfig(temperature=0, repetition_penalty=1, max_new_tokens=4)).text
        events, text = begin(model)
        dead = pid_of(model)
        os.kill(dead, number)
        error = read_to_the_end(events)
        assert isinstance(error, ChildProcessDiedError)
        assert said in error.what
        assert error.advice == "It is being loaded again; send your message again."
        assert text
        again = reply(model, HELLO, SamplingConfig(temperature=0, repetition_penalty=1, max_new_tokens=4))
        assert again.text == expected
        assert pid_of(model) != dead
        wait_for(lambda: not psutil.pid_exists(dead))

    def test_an_abort_in_native_code(self, make: Make) -> None:
        model = make(children.run_until_asked_to_abort)
        other, _ = begin(model)
        request = ReplyRequest(Conversation.from_turns([children.ABORT]), GREEDY)
        assert "crashed (SIGABRT)" in read_to_the_end(model.stream(request)).what
        other.close()
        assert reply(model, HELLO, GREEDY).reply_tokens > 0

    def test_after_three_deaths_within_five_minutes_it_stays_unloaded(self, make: Make) -> None:
        times = iter([0.0, 200.0, 300.0])
        model = make(SCRIPTED, clock=lambda: next(times))
        for _ in range(MAX_DEATHS):
            model.connect()
            os.kill(pid_of(model), signal.SIGKILL)
            wait_for(lambda: not model.description.is_ready)
        assert "3 times within 5 minutes, so it stays unloaded" in model.description.problem
        for _ in range(2):
            with pytest.raises(ChildProcessDiedError, match=r"stays unloaded\. Load it again on the Models page"):
                reply(model, HELLO, GREEDY)
        assert model.pid is None
        model.load()  # As the page does when it is asked to.
        assert model.description.problem == ""
        assert reply(model, HELLO, GREEDY).reply_tokens > 0

    def test_deaths_long_ago_do_not_count(self, make: Make) -> None:
        times = iter([0.0, 301.0, 602.0, 603.0])
        model = make(SCRIPTED, clock=lambda: next(times))
        for _ in range(MAX_DEATHS):
            model.connect()
            os.kill(pid_of(model), signal.SIGKILL)
            wait_for(lambda: not model.description.is_ready)
        assert reply(model, HELLO, GREEDY).reply_tokens > 0

    def test_a_memory_limit_while_it_writes(self, make: Make) -> None:
        """Whether the process survives is the system's decision; that it ends in a sentence is not."""
        model = make(SLOW)
        events, _ = begin(model)
        process = psutil.Process(pid_of(model))
        resource.prlimit(process.pid, resource.RLIMIT_AS, (process.memory_info().vms // 2,) * 2)
        outcomes: list[str] = []
        threads = [threading.Thread(target=_ask, args=(model, outcomes)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        events.close()
        assert len(outcomes) == 12
        assert not [one for one in outcomes if "Traceback" in one]
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: not psutil.pid_exists(process.pid))
        assert reply(model, HELLO, GREEDY).reply_tokens > 0

    def test_a_memory_limit_while_it_is_loaded(self, saved_folder: Path, paths: Paths) -> None:
        model = WorkerModel(str(saved_folder), LoadConfig(precision="float32"), paths)
        failures: list[ChatAppError] = []

        def start() -> None:
            with pytest.raises(ChatAppError) as failure:
                model.load()
            failures.append(failure.value)

        thread = threading.Thread(target=start)
        thread.start()
        wait_for(lambda: model.pid is not None)
        resource.prlimit(pid_of(model), resource.RLIMIT_AS, (300 * 2**20,) * 2)
        thread.join()
        assert "memory ran out" in failures[0].what or isinstance(failures[0], ChildProcessDiedError)
        assert model.pid is None


def _ask(model: WorkerModel, outcomes: list[str]) -> None:
    try:
        outcomes.append(reply(model, HELLO, GREEDY).text)
    except ChatAppError as error:
        outcomes.append(error.sentence())


class TestEnd:
    def test_closing_ends_the_process_and_the_replies(self, make: Make) -> None:
        model = make(SCRIPTED)
        events, _ = begin(model)
        pid = pid_of(model)
        model.close()
        assert not psutil.pid_exists(pid)
        assert "unloaded before the reply was finished" in read_to_the_end(events).what
        with pytest.raises(ChatAppError, match="no longer loaded"):
            reply(model, HELLO, GREEDY)

    @pytest.mark.parametrize("when", ["while loading", "while it replies"])
    def test_when_the_app_is_killed_the_process_ends_by_itself(
        self, saved_folder: Path, tmp_path: Path, when: str
    ) -> None:
        app = _start_app(saved_folder, tmp_path, when)
        wait_for(lambda: len(app.children()) >= 1 and (when == "while loading" or (tmp_path / "replying").exists()))
        children_of_app = app.children(recursive=True)
        app.kill()
        app.wait()
        _, alive = psutil.wait_procs(children_of_app, timeout=60)
        assert not alive


def _start_app(folder: Path, home: Path, when: str) -> psutil.Popen:
    code = f"""
import sys
from functools import partial
from pathlib import Path
from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.inference.worker.manager import ModelManager
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.inference.backend import ReplyRequest
from tests.inference.worker import children
run = children.run_loading_for_ever if {when!r} == "while loading" else partial(children.run_scripted, 0.05)
model = ModelManager(Paths(Path({str(home)!r})), run).use({str(folder)!r}, LoadConfig(precision="float32"))
sampling = SamplingConfig(temperature=0, repetition_penalty=1, max_new_tokens=100)
events = model.stream(ReplyRequest(Conversation.from_turns(["Hello, how are you?"]), sampling))
next(events)
Path({str(home / "replying")!r}).touch()
list(events)
"""
    return psutil.Popen([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[3])
