"""The list from which the model is chosen, in a real Chromium: what loads a model for everybody, and what must not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chat_app.config.paths import Paths
from chat_app.config.server import ServerRules
from chat_app.config.training import TrainConfig
from chat_app.inference.backend import ModelDescription
from chat_app.models.resolver import find
from chat_app.runs.run import Run
from chat_app.services import Services
from chat_app.ui.chat.streaming import LiveReplies
from chat_app.ui.components.theme import page_arguments
from chat_app.ui.page import build_page
from tests.browser.test_page import CHROMIUM, browser, expect  # noqa: F401 - the fixture is used by name.

STARTER, TEA, BOOKS = "starter", "taught-tea", "taught-books"
TITLES = {STARTER: "Starter: comes with this app", TEA: "Taught: Tea", BOOKS: "Taught: Books"}
PICKER = "#chat-model input"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]


class RecordingModels:
    """In place of the store of models: it loads nothing, and notes what it was asked to load."""

    def __init__(self, paths: Paths):
        self._paths = paths
        self.current: Any = None
        self.loaded: list[str] = []

    def use(self, name: str, config: Any = None) -> None:
        """Put a model into use."""
        files = find(name, self._paths)
        model = ModelDescription(name, files.kind, is_ready=True, window=files.window, parameters=files.parameters)
        self.current = SimpleNamespace(name=name, description=model)
        self.loaded.append(name)

    def here(self, name: str | None) -> Any:
        """The model in use."""
        return self.current


@pytest.fixture
def models(tmp_path: Path) -> RecordingModels:
    """The starter is in use, and two runs have left a model."""
    paths = Paths(tmp_path)
    for name, title in ((TEA, "Tea"), (BOOKS, "Books")):
        run = Run.create(paths.runs / name, TrainConfig())
        run.note(title=title)
        shutil.copytree(paths.starter, run.model)
    return RecordingModels(paths)


@pytest.fixture
def open_page(browser: Any, models: RecordingModels, tmp_path: Path) -> Iterator[Callable[[], Any]]:  # noqa: F811
    """Opens the page once more, as another visitor, and waits until it shows which model is in use."""
    services: Any = Services(Paths(tmp_path), ServerRules(training=False))
    services.models = models
    page = build_page(services, LiveReplies())
    models.use(STARTER)
    models.loaded.clear()
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, inbrowser=False, **page_arguments())
    contexts = []

    def open_one() -> Any:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 900}))
        one = contexts[-1].new_page()
        one.goto(address)
        expect(one.locator(PICKER)).to_have_value(TITLES[models.current.name])
        return one

    yield open_one
    for context in contexts:
        context.close()
    page.close()


def tab_past(page: Any) -> None:
    """Go through the picker by the keyboard without choosing anything."""
    page.locator(PICKER).focus()
    page.keyboard.press("Tab")
    expect(page.locator(PICKER)).not_to_be_focused()


def choose(page: Any, name: str) -> None:
    """Choose a model by the pointer."""
    page.locator(PICKER).click()
    page.get_by_role("option", name=TITLES[name]).click()


def choose_by_keyboard(page: Any, name: str) -> None:
    """Choose a model by the arrow keys."""
    page.locator(PICKER).focus()
    active = page.locator("[role=option].active")
    expect(active).to_have_count(1)
    while active.get_attribute("aria-label") != TITLES[name]:
        before = active.get_attribute("data-index")
        page.keyboard.press("ArrowDown")
        expect(active).not_to_have_attribute("data-index", str(before))
    page.keyboard.press("Enter")


@pytest.mark.parametrize("choose_next", [choose, choose_by_keyboard])
def test_a_picker_that_is_only_passed_loads_nothing(
    open_page: Callable[[], Any], models: RecordingModels, choose_next: Callable[[Any, str], None]
) -> None:
    page = open_page()
    tab_past(page)
    tab_past(page)
    choose_next(page, TEA)
    expect(page.locator(PICKER)).to_have_value(TITLES[TEA])
    expect(page.locator("#chat-model-shown textarea")).to_have_value(TEA)
    tab_past(page)
    choose_next(page, BOOKS)
    expect(page.locator("#chat-model-shown textarea")).to_have_value(BOOKS)
    assert models.loaded == [TEA, BOOKS]  # Each of them once, and none when the picker was passed.


def test_a_page_that_is_out_of_date_loads_nothing_and_catches_up(
    open_page: Callable[[], Any], models: RecordingModels
) -> None:
    page, stale = open_page(), open_page()
    choose(page, TEA)
    expect(page.locator("#chat-model-shown textarea")).to_have_value(TEA)
    expect(stale.locator(PICKER)).to_have_value(TITLES[STARTER])
    tab_past(stale)
    expect(stale.locator(PICKER)).to_have_value(TITLES[TEA])
    assert models.loaded == [TEA]


def test_a_choice_from_a_page_that_is_out_of_date_is_asked_for_again(
    open_page: Callable[[], Any], models: RecordingModels
) -> None:
    stale = open_page()
    models.use(TEA)  # As another visitor, or a program, does.
    choose(stale, BOOKS)
    expect(stale.get_by_text("Another model was loaded meanwhile.")).to_be_visible()
    expect(stale.locator(PICKER)).to_have_value(TITLES[TEA])
    assert models.loaded == [TEA]
    choose(stale, BOOKS)
    expect(stale.locator("#chat-model-shown textarea")).to_have_value(BOOKS)
    assert models.loaded == [TEA, BOOKS]
