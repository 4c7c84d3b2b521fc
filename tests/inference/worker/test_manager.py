"""The app's models in processes of their own: one takes the place of another, guests come and go, memory is enough."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.errors import ChatAppError, ModelError, ModelNotFoundError, NotEnoughMemoryError
from chat_app.inference.backend import ReplyRequest, reply
from chat_app.inference.worker.manager import ModelManager
from tests.inference.worker import children
from tests.inference.worker.test_worker_model import pid_of
from tests.server.api_server import wait_for

pytestmark = pytest.mark.slow_file

PLAIN = LoadConfig(precision="float32", device="cpu")
HELLO = Conversation.from_turns(["Hello, how are you?"])
SHORT = SamplingConfig(max_new_tokens=4, seed=1)
PATIENCE = 180.0
SCRIPTED = partial(children.run_scripted, 0.01)
Make = Callable[..., ModelManager]


@pytest.fixture
def make(paths: Paths) -> Iterator[Make]:
    """Makes managers."""
    made: list[ModelManager] = []

    def start(**more: Any) -> ModelManager:
        made.append(ModelManager(paths, **more))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_the_old_one_stays_and_chats_until_the_new_one_is_there(
    make: Make, make_folder: Callable[..., Path], paths: Paths
) -> None:
    manager = make(run=SCRIPTED)
    assert manager.current is None
    first = manager.use(str(make_folder("a")), PLAIN)
    assert manager.current is first
    with pytest.raises(ModelError):
        manager.use(str(paths.home / "nothing"), PLAIN)
    assert manager.current is first
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(manager.use, str(make_folder("b")), PLAIN)
        wait_for(lambda: manager.loading is not None or loading.done())
        assert reply(first, HELLO, SHORT).reply_tokens > 0
        second = loading.result(PATIENCE)
    assert manager.current is second
    with pytest.raises(ChatAppError, match="no longer loaded"):
        reply(first, HELLO, SHORT)
    pid = pid_of(second)
    manager.unload()
    assert manager.current is None
    assert not psutil.pid_exists(pid)  # All of its memory is free.
    manager.unload()


def test_guests_come_and_go_beside_the_model_in_use(make: Make, make_folder: Callable[..., Path]) -> None:
    manager = make(run=SCRIPTED)
    names = [str(make_folder(f"guest-{number}")) for number in range(3)]
    current = manager.use(str(make_folder("host")))
    first, second = manager.guest(names[0]), manager.guest(names[1])
    assert manager.guest(names[0]) is first
    assert manager.current is manager.here(None) is current
    third = manager.guest(names[2])
    assert manager.here(names[1]) is None
    assert manager.here(names[0]) is first
    with pytest.raises(ChatAppError, match="no longer loaded"):
        reply(second, HELLO, SHORT)
    with pytest.raises(ModelError):
        manager.guest("no/such/model/anywhere")
    assert reply(third, HELLO, SHORT).reply_tokens > 0
    pids = [pid_of(one) for one in (current, first, third)]
    assert len(set(pids)) == 3
    manager.unload()
    assert manager.here(names[2]) is None
    assert manager.current is None
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_a_load_can_be_cancelled_and_the_old_model_stays(
    make: Make, make_folder: Callable[..., Path], paths: Paths
) -> None:
    manager = make(run=children.run_loading_for_ever)
    failures: list[ChatAppError] = []

    def use() -> None:
        with pytest.raises(ModelError) as failure:
            manager.use(str(make_folder()))
        failures.append(failure.value)

    thread = threading.Thread(target=use)
    thread.start()
    wait_for(lambda: manager.loading is not None)
    assert manager.loading is not None
    manager.cancel_loading()
    thread.join()
    assert failures[0].what == "Loading it was cancelled."
    assert manager.loading is None
    assert not psutil.Process().children(recursive=True) or all(
        "spawn_main" not in " ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)
    )
    manager.cancel_loading()  # There is nothing to cancel: no error.


class TestMemory:
    """The free memory of these tests is a number in a file."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "free"
        file.write_text("5000 0 1")
        return file

    @pytest.fixture
    def manager(self, make: Make, file: Path) -> ModelManager:
        return make(run=partial(children.run_in_tight_memory, file))

    def test_what_does_not_fit_even_without_the_old_one_is_refused(
        self, manager: ModelManager, file: Path, tmp_path: Path
    ) -> None:
        old = manager.use(str(tmp_path), PLAIN)
        pid = pid_of(old)
        file.write_text(f"500 400 {pid}")
        with pytest.raises(NotEnoughMemoryError, match="500 are free"):
            manager.use(str(tmp_path), PLAIN)
        assert manager.current is old
        assert pid_of(old) == pid
        assert reply(old, HELLO, SHORT).reply_tokens > 0

    def test_what_fits_in_place_of_the_old_one_is_loaded(
        self, manager: ModelManager, file: Path, tmp_path: Path
    ) -> None:
        old = manager.use(str(tmp_path), PLAIN)
        file.write_text(f"700 400 {pid_of(old)}")
        new = manager.use(str(tmp_path), PLAIN)
        assert manager.current is new
        assert reply(new, HELLO, SHORT).reply_tokens > 0
        with pytest.raises(ChatAppError, match="no longer loaded"):
            reply(old, HELLO, SHORT)

    def test_the_old_one_comes_back_where_the_estimate_was_wrong(
        self, manager: ModelManager, file: Path, tmp_path: Path
    ) -> None:
        """There is enough once the old one has ended; but then the new one is no model."""
        old = manager.use(str(tmp_path), PLAIN)
        pid = pid_of(old)
        file.write_text(f"700 400 {pid}")
        with pytest.raises(ModelNotFoundError):
            manager.use(str(tmp_path / "nothing"), PLAIN)
        assert manager.current is old
        assert reply(old, HELLO, SHORT).reply_tokens > 0
        assert pid_of(old) != pid

    def test_guests_leave_for_a_new_one(self, manager: ModelManager, file: Path, tmp_path: Path) -> None:
        folders = [tmp_path / name for name in ("host", "a", "b")]
        for folder in folders:
            folder.mkdir()
        host, first = manager.use(str(folders[0]), PLAIN), manager.guest(str(folders[1]))
        file.write_text(f"700 400 {pid_of(first)}")
        second = manager.guest(str(folders[2]))
        assert manager.here(str(folders[1])) is None
        for one in (host, second):
            assert reply(one, HELLO, SHORT).reply_tokens > 0


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_fifty_switches_beside_eight_chats_leave_the_memory_as_it_was(
    make: Make, make_folder: Callable[..., Path]
) -> None:
    _switch_beside_chats(make(), [str(make_folder(name)) for name in "abc"], switches=50)


@pytest.mark.slow
def test_switches_beside_chats_end_in_sentences(make: Make, make_folder: Callable[..., Path]) -> None:
    _switch_beside_chats(make(), [str(make_folder(name)) for name in "ab"], switches=4)


def _switch_beside_chats(manager: ModelManager, names: list[str], switches: int) -> None:
    """Load, switch and unload while eight chats write: no error is anything but a sentence, and neither the app's
    process nor a guest's, which lives through all of it, grows by more than 20 MB."""
    guest = manager.guest(names[0])
    manager.use(names[0], PLAIN)
    over = threading.Event()
    wrong: list[BaseException] = []
    sizes: list[tuple[int, int]] = []

    def chat(with_guest: bool) -> None:
        while not over.is_set():
            model = guest if with_guest else manager.current
            try:
                if model is None:
                    over.wait(0.05)
                else:
                    list(model.stream(ReplyRequest(HELLO, SamplingConfig(max_new_tokens=40))))
            except ChatAppError as error:
                if with_guest or not error.sentence().startswith("The model"):
                    wrong.append(error)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=chat, args=(number % 2 == 0,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        for number in range(switches):
            manager.use(names[number % len(names)], PLAIN)
            if number % 5 == 4:
                with manager._one_load:
                    leaving, manager._current = manager._current, None
                assert leaving is not None
                leaving.close()
            if number >= 3:
                sizes.append((_bytes_of(None), _bytes_of(pid_of(guest))))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not wrong
    for first, last in zip(sizes[0], sizes[-1], strict=True):
        assert last - first < 20 * 2**20


def _bytes_of(pid: int | None) -> int:
    return int(psutil.Process(pid).memory_info().rss)
