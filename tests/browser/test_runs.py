"""Runs on the page, in a real Chromium: the queue, the slider, a checkpoint, a comparison, the zip, deleting."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.test_page import (  # noqa: F401 - the fixtures are used by name.
    CHROMIUM,
    address,
    browser,
    expect,
    model_folder,
    open_page,
)

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.slow_file,
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]


def set_up(page: Any, model: Path, steps: int) -> None:
    """Bring the sample, choose a short training, and pin two questions."""
    page.get_by_role("tab", name="Teach").click()
    page.set_input_files("#files input[type=file]", ROOT / "sample_data" / "shop.tsv")
    expect(page.locator("#preview .turn")).to_have_count(6)
    page.fill("#set-model input", str(model))
    page.press("#set-model input", "Enter")
    page.click("#questions-panel > button")
    page.fill("#questions textarea", "When are you open?\n<i>Who</i> are you?")
    page.click("#train-advanced > button")
    expect(page.locator("#train-defaults")).to_be_visible()
    for name, value in (("max_steps", str(steps)), ("evaluate_every", str(steps // 3))):
        page.fill(f"#set-{name} input", value)
        page.press(f"#set-{name} input", "Tab")


def test_a_run_waits_its_answers_are_leafed_through_and_its_model_is_taken_away(
    open_page: Callable[[], Any],  # noqa: F811
    model_folder: Path,  # noqa: F811
) -> None:
    page = open_page()
    set_up(page, model_folder, 600)
    page.click("#start")
    expect(page.locator("#run-status .run.running")).to_be_visible()
    page.click("#start")
    expect(page.locator("#run-queue li")).to_have_count(1)
    page.get_by_title("Take out").click()
    expect(page.locator("#run-status .run.stopped")).to_be_visible()
    page.fill("#run input", "Learning")
    page.press("#run input", "Enter")
    expect(page.locator("#run-status .run.done")).to_be_visible()
    expect(page.locator("#samples tbody th")).to_have_text(["When are you open?", "<i>Who</i> are you?"])
    page.fill("#samples-at input[type=number]", "1")
    page.press("#samples-at input[type=number]", "Enter")
    expect(page.locator("#samples thead")).to_contain_text("At step 200")
    page.click("#run-export > button")
    page.fill("#export-licence input, #export-licence textarea", "mit")
    with page.expect_download() as download:
        page.click("#export-zip")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert {"config.json", "model.safetensors", "README.md", "curves.svg"} <= set(archive.namelist())
        assert "license: mit" in archive.read("README.md").decode()
    page.click("#run-which input")
    page.get_by_role("option", name="Checkpoint of step 600").click()
    page.click("#run-chat")
    expect(page.locator("#chat-model input")).to_have_value(re.compile("at step 600"))


def test_runs_are_found_renamed_compared_and_deleted_after_a_warning(open_page: Callable[[], Any]) -> None:  # noqa: F811
    page = open_page()  # With the two runs of the test above.
    page.get_by_role("tab", name="Teach").click()
    page.click("#runs-panel > button")
    rows = page.locator("#runs-list label:has(input)")
    expect(rows).to_have_count(2)
    for row in (rows.first, rows.last):
        row.locator("input").check()
    page.click("#runs-compare")
    expect(page.locator("table.compare thead th")).to_have_count(2)
    expect(page.locator("#compare-plot svg, #compare-plot canvas").first).to_be_visible()
    stopped = page.locator("#runs-list label", has_text="Stopped")
    page.locator("#runs-list label", has_text="Finished").locator("input").uncheck()
    page.fill("#runs-title input, #runs-title textarea", "<b>Tea</b>")
    page.click("#runs-rename")
    expect(stopped).to_have_text(re.compile(re.escape("<b>Tea</b>")))
    page.click("#runs-delete")
    expect(page.locator("#what-goes")).to_contain_text("462 conversations")
    page.click("#really-delete")
    expect(stopped).to_have_count(0)
    expect(page.locator("#delete-warning")).to_be_hidden()
    page.fill("#runs-search input, #runs-search textarea", "nothing like this")
    expect(rows).to_have_count(0)
