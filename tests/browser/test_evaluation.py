"""Proof in a real Chromium: numbers, a blind duel, a correction that is taught and a reply that is searched for."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.browser.test_page import (  # noqa: F401 - the fixtures are found by their names.
    HOSTILE,
    address,
    browser,
    choose,
    expect,
    model_folder,
    open_page,
    pytestmark,
    say,
    shorten_replies,
)


def test_two_models_are_measured_and_meet_in_a_blind_duel(open_page: Callable[[], Any], tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "four.tsv").write_text("".join(f"question {n}\tanswer {n}\n" for n in range(4)), encoding="utf-8")
    page = open_page()
    page.get_by_role("tab", name="Evaluate").click()
    expect(page.locator("#evaluate-after input")).not_to_have_value("")
    page.click("#evaluate-before input")
    page.get_by_role("option").last.click()
    page.set_input_files("#evaluate-files input[type=file]", tmp_path / "four.tsv")
    expect(page.locator("#evaluate-files table")).to_contain_text(re.compile(r"four\s*\.tsv"))  # In two parts.
    page.click("#evaluate-start")
    expect(page.locator("#evaluate-report tbody tr")).to_have_count(8)
    expect(page.locator("#evaluate-report .change").nth(1)).to_contain_text("better")  # Than one that knows nothing.
    with page.expect_download() as download:
        page.click("#evaluate-csv")
    table = list(csv.DictReader(download.value.path().read_text(encoding="utf-8").splitlines()))
    assert {"perplexity", "bits_per_byte", "bleu", "reply_words"} <= {row["measure"] for row in table}
    page.get_by_role("tab", name="Blind duel").click()
    page.fill("#duel-typed textarea", f"{HOSTILE}\nHow are you?")
    page.click("#duel-start")
    for number in (1, 2):
        expect(page.locator("#duel-card .quiet")).to_have_text(f"Question {number} of 2")
        expect(page.locator("#duel-card")).not_to_contain_text("Starter")
        page.click("#duel-first")
    expect(page.locator("#duel-card .verdict-line")).to_contain_text("Starter")
    expect(page.locator("#duel-card tbody tr")).to_have_count(2)
    assert page.locator("#duel-card tbody td *").count() == 0


def test_a_correction_is_taught_and_the_replies_are_searched_for_copies(open_page: Callable[[], Any]) -> None:  # noqa: F811
    page = open_page()
    shorten_replies(page, 8)
    reply = say(page, "What is your name?", 1)
    reply.get_by_label("Edit this reply").click()
    page.get_by_label("Edit the message").fill(HOSTILE)
    page.get_by_label("Edit the message").press("Enter")
    page.get_by_role("button", name="Teach this", exact=True).click()
    expect(page.locator("#corrections li")).to_have_count(1)
    expect(page.locator("#corrections li")).to_contain_text(HOSTILE)
    expect(page.locator("#conversation .turn.assistant .note")).to_have_text("Kept, to be taught.")
    page.get_by_role("button", name="Change", exact=True).click()
    page.get_by_label("What it should have said").fill("My name is <i>Pip</i>.")
    page.click("#correction-save")
    expect(page.locator("#corrections li")).to_contain_text("My name is <i>Pip</i>.")
    page.click("#corrections-teach")
    expect(page.locator("#run-status .run.done")).to_be_visible()
    page.click("#run-chat")
    expect(page.locator("#copied")).to_be_visible()
    say(page, "Hello", 1)
    page.check("#copied input")
    expect(page.locator("#conversation .copy-badge")).to_have_text(["new"])
    say(page, "And again?", 2)
    expect(page.locator("#conversation .copy-badge")).to_have_text(["new", "new"])
    page.uncheck("#copied input")
    expect(page.locator("#conversation .copy-badge")).to_have_count(0)
    page.reload()
    page.click("#corrections-panel > button")
    expect(page.locator("#corrections li")).to_have_count(1)
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.locator("#corrections li")).to_have_count(0)
