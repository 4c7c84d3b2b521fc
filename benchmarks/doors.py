"""What of the engine's speed reaches those who wait for it: a program over HTTP, and a person in front of the page.

    pip install playwright        (and a Chromium that the system knows)
    python -m benchmarks.doors [--quick] [--model FOLDER]

The engine writes a reply alone in this process; the same reply comes from a server in a process of its own, over
`/v1/chat/completions` to a client in a third one, and onto the page in a real Chromium. All have the same processors,
so what a browser draws is taken from the engine: a row tells how fast the server's engine was meanwhile. Speeds are
tokens a second from the first to the last that the reader has. Printed are the medians of several rounds, and of their
ratios.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GPT2LMHeadModel, GPT2Tokenizer

from benchmarks.engine import Ours, make_model, row
from benchmarks.start import a_process, wait_until, when_said
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.inference.request import Request
from chat_app.kernels.packed_weights import get_kernel
from chat_app.models.loading import fit_embeddings
from chat_app.models.saving import save_model_folder
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder

NEW, WINDOW = 256, 1024
QUESTION = "Tell me about the shop in the old town, please."
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
# The server as it is, except that its first model is loaded in the fast mode.
SERVER = """
import sys
from functools import partial
from chat_app import services
services.LoadConfig = partial(services.LoadConfig, precision="8-bit")
from app import main
sys.exit(main(sys.argv[1:]))
"""
CLIENT = """
import http.client, json, sys, time
port, new = int(sys.argv[1]), int(sys.argv[2])
for question in sys.stdin:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = {"messages": [{"role": "user", "content": question.strip()}], "max_tokens": new, "stream": True,
            "stream_options": {"include_usage": True}}
    started = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    times, tokens = [], 0
    for line in answer:
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
            elif event["choices"][0]["delta"].get("content"):
                times.append(time.perf_counter() - started)
    connection.close()
    print(json.dumps({"first": times[0], "last": times[-1], "begun": 1, "tokens": tokens}), flush=True)
"""
# Notes when the reply's text was drawn: a change is seen before the frame that shows it.
WATCH = """() => {
  const view = document.querySelector("#conversation");
  window.begin = () => {
    window.seen = [];
    window.ended = new Promise((resolve) => { window.end = resolve; });
  };
  window.begin();
  new MutationObserver(() => {
    if (view.querySelector(".turn.assistant .note")) requestAnimationFrame(() => window.end());
    const said = [...view.querySelectorAll(".turn.assistant .said:not(.waiting)")].pop();
    const text = said ? said.textContent : "";
    const last = window.seen.length ? window.seen[window.seen.length - 1].text : "";
    if (!text || text === last) return;
    const one = { text, time: 0 };
    window.seen.push(one);
    requestAnimationFrame(() => { one.time = performance.now(); });
  }).observe(view, { childList: true, subtree: true, characterData: true });
  document.querySelector("#message textarea").addEventListener("keydown", (event) => {
    if (event.key === "Enter") window.asked = performance.now();
  }, true);
}"""


@dataclass(frozen=True)
class Seen:
    """What a reader saw of a reply: seconds from the question to its first and last tokens, how many had come with the
    first, and how many came in all; `engine` is what the server's own engine counted a second, where that is told."""

    first: float
    last: float
    begun: int
    tokens: int
    engine: float = 0.0
    updates: int = 0

    @property
    def speed(self) -> float:
        """Tokens a second, from the first to the last."""
        return (self.tokens - self.begun) / (self.last - self.first)


def make_talkative(folder: Path) -> None:
    """GPT-2's shape with random weights, whose replies never end: the end mark's score is far below all others."""
    import torch

    make_model(folder / "plain")
    model = GPT2LMHeadModel.from_pretrained(folder / "plain")
    tokenizer = GPT2Tokenizer.from_pretrained(folder / "plain")
    encoder = Encoder(tokenizer, get_format("roles"), WINDOW)
    fit_embeddings(model, tokenizer)
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = 0.0  # The last layer's first number is 10, whatever was read.
        model.transformer.ln_f.bias[0] = 10.0
        model.transformer.wte.weight[:, 0] = 0.0
        model.transformer.wte.weight[list(encoder.end_ids), 0] = -5.0
    save_model_folder(folder / "model", model, encoder)


class Alone:
    """The engine, with nothing before it."""

    def __init__(self, folder: Path):
        self._ours = Ours(folder, "8-bit")
        get_kernel(eight_bits=True).result()  # Compiled once, for the server too.

    def reply(self, question: str) -> Seen:
        """One reply, with the settings that the server takes by itself."""
        encoder = self._ours.loaded.encoder
        example = encoder.prompt(Conversation.from_turns([question], last="user"), NEW)
        kind = example.types[-1] if example.types else None
        silent = encoder.suppressed_ids.union(range(len(self._ours.loaded.tokenizer), self._ours.engine.vocabulary))
        request = Request(example.ids, example.types, kind, SamplingConfig(), encoder.end_ids, silent, NEW)
        started = time.perf_counter()
        times = [time.perf_counter() - started for _ in self._ours.engine.stream(request)]
        return Seen(times[0], times[-1], 1, len(times))

    def close(self) -> None:
        """Give the model back."""
        self._ours.engine.close()


@contextmanager
def a_server(model: Path, home: Path) -> Iterator[str]:
    """The server in a process of its own; its address."""
    with a_process(["-c", SERVER, "--port", "0", "--model", str(model)], home) as (process, said):
        wait_until(lambda: when_said(said, "is ready: "), process, said)
        found = re.search(r"is ready: (http://\S+)", "".join(line for _, line in said))
        assert found is not None
        yield found[1]


class Program:
    """A client of the HTTP API in a process of its own."""

    def __init__(self, address: str):
        port = address.rpartition(":")[2]
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, port, str(NEW)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def reply(self, question: str) -> Seen:
        """One reply, as events."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return Seen(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End it."""
        self._process.communicate()


class Page:
    """The page in a browser."""

    def __init__(self, browser: Any, address: str, tokenizer: Any):
        self._tokenizer = tokenizer
        self._page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        self._page.goto(address)
        self._page.locator(".hints button").first.wait_for()
        self._page.click("#sampling-panel > button")
        self._page.wait_for_timeout(500)  # What is typed as soon as a control is there, Gradio sets back.
        self._page.fill("#set-max_new_tokens input", str(NEW))
        self._page.press("#set-max_new_tokens input", "Tab")
        self._page.click("#sampling-panel > button")
        self._page.evaluate(WATCH)

    def reply(self, question: str) -> Seen:
        """One reply in a new conversation."""
        self._page.click("#clear")
        self._page.locator(".hints button").first.wait_for()
        self._page.evaluate("() => window.begin()")
        self._page.fill("#message textarea", question)
        self._page.press("#message textarea", "Enter")
        # The page tells when it is over: asking again and again would take time from those who are measured.
        self._page.evaluate("() => window.ended")
        self._page.wait_for_timeout(250)
        note = self._page.locator("#conversation .turn.assistant .note")
        told = re.match(r"([\d,]+) tokens?(?:, (\d+) a second)?", note.inner_text())
        assert told is not None
        assert told[1] == str(NEW), f"a reply of {told[1]} tokens instead of {NEW}"
        asked, seen = self._page.evaluate("() => [window.asked, window.seen]")
        begun = len(self._tokenizer.encode(seen[0]["text"]))
        first, last = ((one["time"] - asked) / 1000 for one in (seen[0], seen[-1]))
        return Seen(first, last, begun, int(told[1].replace(",", "")), float(told[2] or 0), len(seen))

    def close(self) -> None:
        """Close the page: it takes no time any more."""
        self._page.context.close()


def measure(readers: dict[str, Any], rounds: int) -> dict[str, list[Seen]]:
    """A reply for each reader in every round; who comes first changes. The first round does not count."""
    found: dict[str, list[Seen]] = {name: [] for name in readers}
    for number in range(rounds + 1):
        names = list(readers) if number % 2 else list(reversed(readers))
        for name in names:
            seen = readers[name].reply(f"{QUESTION} ({number})")
            if number:
                found[name].append(seen)
    return found


def speeds(found: list[Seen]) -> list[float]:
    """Tokens a second of each reply."""
    return [one.speed for one in found]


def print_rows(reader: str, found: dict[str, list[Seen]]) -> None:
    """The lines of one reader, beside the engine alone in the same rounds."""
    seen, alone = found["reader"], found["alone"]
    beside = list(zip(speeds(seen), speeds(alone), strict=True))
    row(f"tokens that reach {reader}, engine alone", ">= 0.9", beside, "tokens/s")
    firsts = [(one.first, other.first) for one, other in zip(seen, alone, strict=True)]
    row(f"first token at {reader}, engine alone", "", firsts, "ms", 1000)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--model", type=Path, help="a folder that `make_talkative` has filled, used again")
    options = parser.parse_args()
    rounds = 3 if options.quick else 9
    with tempfile.TemporaryDirectory() as name:
        folder = options.model or Path(name)
        if not (folder / "model").exists():
            make_talkative(folder)
        alone = Alone(folder / "model")
        with a_server(folder / "model", Path(name) / "home") as address:
            print(f"replies of {NEW} tokens in the fast mode; medians of {rounds} rounds\n")
            print("| | ours | beside | ratio | goal |\n|---|---|---|---|---|")
            program = Program(address)
            print_rows("a program (SSE)", measure({"alone": alone, "reader": program}, rounds))
            program.close()
            print_page_rows(address, alone, folder / "model", rounds)
        alone.close()


def print_page_rows(address: str, alone: Alone, model: Path, rounds: int) -> None:
    """The lines of a person in front of the page."""
    if CHROMIUM is None:
        print("\nThere is no Chromium here: the page was not measured.")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = Page(browser, address, GPT2Tokenizer.from_pretrained(model))
        found = measure({"alone": alone, "reader": page}, rounds)
        print_rows("the page", found)
        engine = [one.engine for one in found["reader"]]
        held_up = list(zip(engine, speeds(found["alone"]), strict=True))
        row("the server's engine while the page draws, engine alone", "", held_up, "tokens/s")
        whole = list(zip(speeds(found["reader"]), engine, strict=True))
        row("tokens that reach the page, the server's engine", ">= 0.9", whole, "tokens/s")
        print(f"\nThe page was drawn {statistics.median(one.updates for one in found['reader']):.0f} times a reply.")
        page.close()
        browser.close()


if __name__ == "__main__":
    main()
