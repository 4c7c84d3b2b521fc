"""The page in a real Chromium, on the real server, with a tiny model that knows nothing and a training that is real."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chat_app.data.readers import read_file
from chat_app.ui.training.run_curves import COLORS
from chat_app.ui.training.run_report import TRAINING, VALIDATION

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
SLOW = 180_000  # Milliseconds: a process that starts on a busy computer.
expect.set_options(timeout=SLOW)

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
HOSTILE = (
    "<b>bold</b> <img src=x onerror=alert(1)> <script>alert(2)</script> $$x^2$$ <speaker1> &amp; &lt; "
    "[link](http://evil.example/a) ![image](http://evil.example/b.png) {{value}} ${alert(3)}"
)
# Presses Stop as soon as there is text: so small a model may be ready before a click from outside arrives.
STOPPING = """() => {
  const timer = setInterval(() => {
    const said = document.querySelector("#conversation .turn.assistant .said:not(.waiting)");
    const stop = document.querySelector("#message [data-testid=stop-button]");
    if (said && said.innerText && stop) { clearInterval(timer); stop.click(); }
  }, 5);
}"""
# Notes the pieces of a reply that come beside Gradio's events, and how long the reply is that is drawn.
FOLLOWING = """() => {
  window.came = [];
  window.followed = false;  // Whether what was drawn once came from there, and was not the first of it.
  const view = document.querySelector("#conversation");
  new MutationObserver(() => {
    const said = [...view.querySelectorAll(".turn.assistant .said")].pop();
    if (window.came.length > 1 && said && said.textContent === window.came.join("")) window.followed = true;
  }).observe(view, { childList: true, subtree: true, characterData: true });
  const Source = window.EventSource;
  window.EventSource = class extends Source {
    constructor(...given) {
      super(...given);
      window.came = [];
      this.addEventListener("message", (event) => window.came.push(JSON.parse(event.data)));
    }
  };
}"""
# Before any script of the page, so whatever asks the browser for a frame is counted.
COUNTING_FRAMES = """
const request = window.requestAnimationFrame.bind(window);
let asked = 0, before = -1;
window.requestAnimationFrame = (draw) => { asked += 1; return request(draw); };
window.framesOfLastSecond = () => { const more = asked - before; before = asked; return more; };
"""
WRONG = "When do you open?\tAt nine.\nonly one column\nDo you have cups?\tYes, we do.\n<i>x</i>\n"

pytestmark = [
    pytest.mark.slow_file,
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of four layers with random weights: it writes nonsense, and never ends a reply by itself."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, set_seed

    from chat_app.models.saving import save_model_folder
    from chat_app.tokenization.chat_formats import get_format
    from chat_app.tokenization.encoder import Encoder
    from chat_app.training.pretraining import train_tokenizer

    folder = tmp_path_factory.mktemp("model")
    train_tokenizer([ROOT / "sample_data" / "shop.tsv"], 600, folder / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    set_seed(0)
    # An activation that the compiled step does not know: else the longest reply is over before anybody could stop it.
    shape = {"n_positions": 8192, "n_embd": 64, "n_layer": 4, "n_head": 2, "activation_function": "gelu"}
    config = GPT2Config(vocab_size=len(tokenizer), **shape)
    model, encoder = GPT2LMHeadModel(config), Encoder(tokenizer, get_format("roles"), 8192)
    with torch.no_grad():
        model.transformer.ln_f.bias[0] = 10.0
        model.transformer.wte.weight[:, 0] = 0.0
        model.transformer.wte.weight[list(encoder.end_ids), 0] = -5.0  # So the end mark's score is 50 below the rest.
    save_model_folder(folder / "tiny", model, encoder)
    return folder / "tiny"


@pytest.fixture(scope="module")
def address(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real server in its own process, with a home of its own."""
    environment = {
        **os.environ,
        "CHAT_APP_HOME": str(tmp_path_factory.mktemp("home")),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, str(ROOT / "app.py"), "--port", "0", "--model", str(model_folder)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        lines: list[str] = []
        found = None
        for line in server.stdout:
            lines.append(line)
            if found := re.search(r"ready: (http://\S+)", line):
                break
        assert found, "".join(lines)
        # What it prints later must not fill the pipe.
        threading.Thread(target=lines.extend, args=(server.stdout,), daemon=True).start()
        try:
            yield found[1]
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(timeout=180)
            except subprocess.TimeoutExpired:
                server.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all the tests."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[[], Any]]:
    """Opens the page as a new visitor. At the end: nothing was fetched from outside, and no script has failed."""
    contexts, requests, errors = [], [], []

    def open_one() -> Any:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SLOW)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: (errors.append(dialog.message), dialog.dismiss()))
        page.goto(address)
        expect(page.locator(".hints button").first).to_be_visible(timeout=SLOW)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not errors
    assert not [url for url in requests if not url.startswith((address, "data:", "blob:"))]


def say(page: Any, text: str, replies: int) -> Any:
    """Say something and wait for the end of the reply; it is returned."""
    page.fill("#message textarea", text)
    page.press("#message textarea", "Enter")
    return replied(page, replies)


def replied(page: Any, replies: int) -> Any:
    """Wait until there are so many replies, and the last one has ended."""
    notes = page.locator("#conversation .turn.assistant .note")
    expect(notes).to_have_count(replies)
    expect(page.locator("#conversation .turns")).to_have_attribute("aria-busy", "false")
    return page.locator("#conversation .turn.assistant").last


def shorten_replies(page: Any, tokens: int) -> None:
    """Replies of at most so many tokens."""
    page.click("#sampling-panel > button")
    page.fill("#set-max_new_tokens input", str(tokens))
    page.press("#set-max_new_tokens input", "Tab")


def test_a_reply_comes_with_a_quiet_line_and_retry_undo_and_clear_work(open_page: Callable[[], Any]) -> None:
    page = open_page()
    shorten_replies(page, 12)
    reply = say(page, "Hello!", 1)
    expect(reply.locator(".note")).to_contain_text("tokens of memory used")
    expect(page.locator("#message textarea")).to_have_value("")
    say(page, "And again?", 2)
    first = page.locator("#conversation .turn.assistant .said").last.inner_text()
    reply = page.locator("#conversation .turn.assistant").last
    reply.get_by_label("Another reply").click()
    expect(page.locator("#conversation .turn.assistant .said").last).not_to_have_text(first)
    reply = replied(page, 2)
    reply.get_by_label("Undo").click()
    expect(page.locator("#conversation .turn")).to_have_count(2)
    expect(page.locator("#message textarea")).to_have_value("And again?")
    page.click("#clear")
    expect(page.locator("#conversation .turn")).to_have_count(0)


def test_a_page_at_rest_asks_for_no_frames(open_page: Callable[[], Any]) -> None:
    page = open_page()
    page.add_init_script(COUNTING_FRAMES)
    page.reload()
    expect(page.locator(".hints button").first).to_be_visible()
    page.wait_for_function("() => window.framesOfLastSecond() === 0", polling=1000, timeout=SLOW)


def test_an_edited_message_is_answered_anew_and_what_came_after_it_goes(open_page: Callable[[], Any]) -> None:
    page = open_page()
    shorten_replies(page, 8)
    say(page, "One & one", 1)
    say(page, "Two", 2)
    turn = page.locator("#conversation .turn.user").first
    turn.hover()
    turn.get_by_label("Edit this message").click()
    area = page.get_by_label("Edit the message")
    expect(area).to_have_value("One & one")
    area.fill("Three <3")
    area.press("Enter")
    expect(page.locator("#conversation .turn.user .said")).to_have_text(["Three <3"])
    replied(page, 1)


def test_stop_ends_a_reply_at_once_and_keeps_what_there_is(open_page: Callable[[], Any]) -> None:
    page = open_page()
    shorten_replies(page, 4096)
    page.fill("#message textarea", "Tell me everything")
    page.evaluate(STOPPING)
    page.press("#message textarea", "Enter")
    reply = replied(page, 1)
    expect(reply.locator(".note")).to_contain_text("You stopped it.")
    assert reply.locator(".said").inner_text()
    expect(page.get_by_role("button", name="Send")).to_be_visible()


def test_a_page_follows_its_reply_by_itself(open_page: Callable[[], Any]) -> None:
    page = open_page()
    page.evaluate(FOLLOWING)
    shorten_replies(page, 128)
    for number in range(1, 21):  # One that is over with its first words shows nothing.
        page.fill("#message textarea", "Tell me everything")
        with page.expect_response(re.compile(r"/gradio_api/live/[\w-]{24}$")) as answer:
            page.press("#message textarea", "Enter")
        assert answer.value.status == 200
        assert replied(page, number).locator(".said").inner_text()
        if page.evaluate("window.followed"):
            return
    raise AssertionError("what was drawn never came from there")


def test_what_people_and_models_write_is_shown_as_it_stands(open_page: Callable[[], Any]) -> None:
    page = open_page()
    shorten_replies(page, 8)
    reply = say(page, HOSTILE, 1)
    said = page.locator("#conversation .turn.user .said")
    assert said.inner_text() == HOSTILE
    page.locator("#conversation .turn.user").hover()
    page.locator("#conversation .turn.user").get_by_label("Copy").click()
    assert page.evaluate("navigator.clipboard.readText()") == HOSTILE
    reply.get_by_label("Edit this reply").click()  # A reply goes the same way, whoever wrote it.
    page.get_by_label("Edit the message").fill(HOSTILE)
    page.get_by_label("Edit the message").press("Enter")
    expect(page.locator("#conversation .turn.assistant .said")).to_have_text(HOSTILE)
    assert page.locator("#conversation .said *").count() == 0


def test_a_text_that_is_too_long_is_refused_in_one_sentence(open_page: Callable[[], Any]) -> None:
    page = open_page()
    page.fill("#message textarea", "<u>" + "x" * 20_001)
    page.press("#message textarea", "Enter")
    expect(page.get_by_text("20,000 are allowed")).to_be_visible()
    expect(page.locator("#conversation .turn")).to_have_count(0)


def test_two_visitors_never_see_each_others_turns(open_page: Callable[[], Any]) -> None:
    one, other = open_page(), open_page()
    shorten_replies(one, 8)
    shorten_replies(other, 8)
    say(one, "I am the first", 1)
    say(other, "I am the second", 1)
    say(one, "Still the first", 2)
    expect(one.locator("#conversation .turn.user .said")).to_have_text(["I am the first", "Still the first"])
    expect(other.locator("#conversation .turn.user .said")).to_have_text(["I am the second"])


def test_a_wrong_file_is_shown_by_line(open_page: Callable[[], Any], tmp_path: Path) -> None:
    (tmp_path / "wrong.tsv").write_text(WRONG, encoding="utf-8")
    page = open_page()
    page.get_by_role("tab", name="Teach").click()
    page.set_input_files("#files input[type=file]", tmp_path / "wrong.tsv")
    rows = page.locator("#reading table.problems tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first.locator("td").first).to_have_text("2")
    expect(rows.last.locator("td").first).to_have_text("4")
    expect(page.locator("#reading")).to_contain_text("2 conversations")
    (tmp_path / "useless.tsv").write_text("nothing here\n", encoding="utf-8")
    page.get_by_label("Clear").click()
    page.set_input_files("#files input[type=file]", tmp_path / "useless.tsv")
    expect(page.locator("#reading .bad")).to_contain_text("Line 1")
    expect(page.locator("#start")).to_be_disabled()


def bring(page: Any, file: Path) -> None:
    """Upload a file and wait until it was read and checked."""
    page.get_by_role("tab", name="Teach").click()
    page.set_input_files("#files input[type=file]", file)
    expect(page.locator("#check dl.facts")).to_be_visible()


def choose(page: Any, control: str, choice: str) -> None:
    """Pick from a drop-down list."""
    box = page.locator(f"{control} input")
    box.click()
    page.locator(f'[id^="{box.get_attribute("aria-controls")}-option"]', has_text=choice).click()
    expect(box).to_have_value(re.compile(choice))
    expect(box).to_have_attribute("aria-expanded", "false")


def test_a_table_is_mapped_mended_and_downloaded(open_page: Callable[[], Any], tmp_path: Path) -> None:
    rows = ["alpha;beta;gamma", *["7;Hello <b>there</b>;Hi"] * 2, "8;Write to me@example.org;I will"]
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    page = open_page()
    page.get_by_role("tab", name="Teach").click()
    page.set_input_files("#files input[type=file]", tmp_path / "table.csv")
    expect(page.get_by_role("alert")).to_contain_text("Nothing in this table is known to be talk")
    expect(page.get_by_role("alert")).not_to_contain_text("--columns")
    for column, role in ((1, "Left out"), (2, "Reply to learn"), (3, "Said to the bot")):
        choose(page, f"#column-{column}", role)
    page.click("#read-again")
    expect(page.locator("#preview .turn.user .said").first).to_have_text("Hi")
    expect(page.locator("#preview .turn.assistant .said").first).to_have_text("Hello <b>there</b>")
    expect(page.locator('#check [data-finding="html"]')).to_be_visible()
    page.get_by_label("Remove HTML").check()
    page.get_by_label("Mask e-mail addresses").check()
    expect(page.locator("#preview .turn.assistant .said")).to_have_text(["Hello there", "Write to [e-mail]"])
    with page.expect_download() as download:
        page.click("#save-jsonl")
    assert download.value.suggested_filename == "table-mended.jsonl"
    texts = [found.texts for found in read_file(download.value.path(), name="a.jsonl").conversations]
    assert texts == [["Hi", "Hello there"], ["I will", "Write to [e-mail]"]]


def test_an_exported_chat_asks_who_the_bot_is(open_page: Callable[[], Any], tmp_path: Path) -> None:
    said = [("Anna", "hi"), ("Ben", "hello"), ("Anna", "where are you?"), ("Ben", "at home")]
    lines = [f"01/02/2024, 10:0{minute} - {name}: {text}" for minute, (name, text) in enumerate(said)]
    (tmp_path / "chat.txt").write_text("\n".join(lines), encoding="utf-8")
    page = open_page()
    bring(page, tmp_path / "chat.txt")
    expect(page.locator("#bot input")).to_have_value("Ben (2 messages)")
    expect(page.locator("#preview .turn.assistant .said")).to_have_text(["hello", "at home"])
    choose(page, "#bot", "Anna")
    page.click("#read-again")
    expect(page.locator("#preview .turn.assistant .said")).to_have_text(["hi", "where are you?"])


def test_reading_can_be_stopped(open_page: Callable[[], Any], tmp_path: Path) -> None:
    with (tmp_path / "many.tsv").open("w", encoding="utf-8") as file:
        file.writelines(f"question {number}\tanswer {number}\n" for number in range(1_500_000))
    page = open_page()
    page.get_by_role("tab", name="Teach").click()
    page.set_input_files("#files input[type=file]", tmp_path / "many.tsv")
    expect(page.locator("#reading-progress")).to_contain_text("so far")
    page.click("#reading-stop")
    expect(page.locator("#reading-progress")).to_be_hidden()
    expect(page.locator("#reading")).to_contain_text("Stopped")
    expect(page.locator("#start")).to_be_disabled()


def begin_training(page: Any, model: Path, steps: int) -> None:
    """Upload the sample and start a run."""
    page.get_by_role("tab", name="Teach").click()
    page.set_input_files("#files input[type=file]", ROOT / "sample_data" / "shop.tsv")
    expect(page.locator("#reading")).to_contain_text("462 conversations")
    expect(page.locator("#preview .turn")).to_have_count(6)
    page.fill("#set-model input", str(model))
    page.press("#set-model input", "Enter")
    page.click("#train-advanced > button")
    expect(page.locator("#train-defaults")).to_be_visible()  # The last of what is drawn when the panel opens.
    for name, value in (("max_steps", steps), ("evaluate_every", max(steps // 2, 4))):
        page.fill(f"#set-{name} input", str(value))
        page.press(f"#set-{name} input", "Tab")
        expect(page.locator(f"#set-{name} input")).to_have_value(str(value))
    page.click("#start")


def test_a_training_is_seen_after_a_reload_and_elsewhere_and_can_be_stopped(
    open_page: Callable[[], Any], model_folder: Path
) -> None:
    page = open_page()
    begin_training(page, model_folder, 100_000)
    expect(page.locator("#run-status .run.running")).to_be_visible()
    expect(page.locator("#run-status")).to_contain_text("of 100,000")
    run = page.locator("#run input").input_value()
    page.reload()
    expect(page.locator(".hints button").first).to_be_visible()
    page.get_by_role("tab", name="Teach").click()
    other = open_page()
    other.get_by_role("tab", name="Teach").click()
    for seen in (page, other):
        expect(seen.locator("#run-status .run.running")).to_be_visible()
        expect(seen.locator("#run-status")).to_contain_text("of 100,000")
        assert seen.locator("#run input").input_value() == run
    other.get_by_role("tab", name="Chat").click()  # The chat goes on while it trains.
    shorten_replies(other, 8)
    say(other, "Are you there?", 1)
    page.click("#run-stop")
    expect(page.locator("#run-status .run.stopped")).to_be_visible()
    expect(page.locator("#run-resume")).to_be_visible()
    expect(page.locator("#run-chat")).to_be_visible()


def test_a_training_to_its_end_and_a_chat_with_the_result(open_page: Callable[[], Any], model_folder: Path) -> None:
    page = open_page()
    begin_training(page, model_folder, 8)
    expect(page.locator("#run-status .run.done")).to_be_visible()
    expect(page.locator("#run-status [role=progressbar]")).to_have_attribute("aria-valuenow", "100")
    expect(page.locator("#run-status")).to_contain_text("Perplexity")
    expect(page.locator("#samples tbody tr")).to_have_count(4)
    for curve, points in ((TRAINING, 8), (VALIDATION, 2)):
        marks = page.locator(f'#loss-plot path[stroke="{COLORS[curve]}"]')
        expect(marks.nth(points)).to_be_attached()  # A line, and a mark for each point.
    with page.expect_download() as download:
        page.click("#run-log")
    assert download.value.suggested_filename == "training-log.txt"
    page.click("#run-chat")
    expect(page.locator("#chat-model input")).to_have_value(re.compile("Taught: shop.tsv"))
    shorten_replies(page, 8)
    say(page, "When are you open?", 1)
    expect(page.locator("#conversation .turn.assistant .who")).to_have_text("Your model")
