"""Everything at once, in a process of its own: python -m tests.inference.stress HOME SECONDS MODEL...

Models are loaded, switched, unloaded, taught and evaluated while others write. Every reply and every measurement must
be what it is when nothing else happens. Ends with 0 and counts of what was done, or with a list of what went wrong.
"""

from __future__ import annotations

import faulthandler
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.errors import ChatAppError
from chat_app.evaluation.evaluate import evaluate
from chat_app.inference.backend import reply
from chat_app.inference.loaded_model import LoadedModel, load
from chat_app.kernels.packed_weights import get_kernel
from chat_app.models.loading import load_parts
from chat_app.system.memory import release_memory
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder
from chat_app.training.job_queue import Jobs
from chat_app.training.prepare import write_run
from tests.conftest import CONFIG, reading_of

GREEDY = SamplingConfig(temperature=0, max_new_tokens=24)
ASKED = [Conversation.from_turns([text]) for text in ("Hello, how are you?", "Where is the shop?", "Thank you!")]
PRECISIONS = ("bfloat16", "8-bit")
GONE = ("The model was unloaded", "The model is no longer loaded")
PATIENCE = 600.0  # Seconds that something may take at the end, when only this is left to do.


class Store:
    """Models of this process that are exchanged while others use them: the one in use, and at most two guests."""

    def __init__(self, paths: Paths):
        self._paths = paths
        self._loading = threading.Lock()
        self.current: LoadedModel | None = None
        self._guests: dict[str, LoadedModel] = {}

    def use(self, name: str, config: LoadConfig) -> None:
        """Load a model in place of the one in use."""
        with self._loading:
            old, self.current = self.current, load(name, config, self._paths)
            self._close(old)

    def guest(self, name: str) -> LoadedModel:
        """A guest, for which the one that was used least recently is closed."""
        with self._loading:
            found = self._guests.pop(name, None) or load(name, LoadConfig(), self._paths)
            while len(self._guests) > 1:
                self._close(self._guests.pop(next(iter(self._guests))))
            self._guests[name] = found
            return found

    def unload(self) -> None:
        """Close all."""
        with self._loading:
            leaving, self._guests = [*self._guests.values(), self.current], {}
            self.current = None
            while leaving:
                self._close(leaving.pop())

    def _close(self, one: LoadedModel | None) -> None:
        if one is not None:
            one.close()
        del one
        release_memory()


class Stress:
    """What is done at once.

    Args:
        home: for runs. models: folders of models whose replies differ.
    """

    def __init__(self, home: Path, models: list[str]):
        self._paths, self._models = Paths(home), models
        self._expected = {
            (model, precision): self._quiet(model, precision) for model in models for precision in PRECISIONS
        }
        assert len({tuple(one) for one in self._expected.values()}) >= len(models), "models that differ"
        self._measured = [self._measure(model) for model in models]
        self._steady = self._load(models[0], "bfloat16")
        self._store = Store(self._paths)
        self._jobs = Jobs(self._paths)
        self._ended = threading.Event()
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []

    def _load(self, model: str, precision: str) -> LoadedModel:
        return load(model, LoadConfig(precision=precision, device="cpu"), self._paths)

    def _quiet(self, model: str, precision: str) -> list[str]:
        """A model's replies when nothing else happens."""
        loaded = self._load(model, precision)
        try:
            return [reply(loaded, one, GREEDY).text for one in ASKED]
        finally:
            loaded.engine.close()

    def _measure(self, model: str) -> Any:
        found, tokenizer, files, detected_format = load_parts(
            model, LoadConfig(precision="bfloat16", device="cpu"), self._paths
        )
        encoder = Encoder(tokenizer, get_format(detected_format.format), files.window)
        measured = evaluate(found, encoder, reading_of(6).conversations, most_replies=2)
        return measured.learned_tokens, measured.replies, round(measured.perplexity, 2), measured.reply_words

    def run(self, seconds: float) -> None:
        """Do all of it for so long."""
        tasks: list[Callable[[], None]] = [self._chat_steadily, self._chat_steadily, self._chat_with_the_one_in_use]
        tasks += [self._switch, self._use_guests, self._evaluate, self._teach]
        threads = [threading.Thread(target=self._repeat, args=(task,), name=task.__name__) for task in tasks]
        for thread in threads:
            thread.start()
        self._ended.wait(seconds)
        self._ended.set()
        end = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0))
            if thread.is_alive():
                faulthandler.dump_traceback()
                self.failures.append(f"{thread.name} does not end")
        self._jobs.close()
        self._store.unload()
        self._steady.engine.close()
        if torch.get_default_dtype() != torch.float32:
            self.failures.append(f"the default type is {torch.get_default_dtype()} now")

    def _repeat(self, task: Callable[[], None]) -> None:
        """A task again and again, at least once; the first thing that goes wrong ends everything."""
        try:
            while True:
                task()
                self.done[task.__name__] += 1
                if self._ended.is_set():
                    return
        except BaseException as error:
            self.failures.append(f"{task.__name__}: {type(error).__name__}: {error}")
            self._ended.set()

    def _check(self, loaded: LoadedModel, model: str, precision: str) -> None:
        for asked, expected in zip(ASKED, self._expected[model, precision], strict=True):
            text = reply(loaded, asked, GREEDY).text
            if text != expected:
                raise AssertionError(f"{model} in {precision} wrote {text!r} and not {expected!r}")

    def _chat_steadily(self) -> None:
        self._check(self._steady, self._models[0], "bfloat16")

    def _chat_with_the_one_in_use(self) -> None:
        loaded = self._store.current
        if loaded is None:
            self._ended.wait(0.01)
            return
        try:
            self._check(loaded, loaded.name, loaded.precision)
        except ChatAppError as error:  # It was exchanged or unloaded meanwhile, and the reply says so.
            if not str(error).startswith(GONE):
                raise

    def _switch(self) -> None:
        for model, precision in zip(self._models, cycle(PRECISIONS)):
            self._store.use(model, LoadConfig(precision=precision, device="cpu"))
        self._store.unload()

    def _use_guests(self) -> None:
        for model in self._models:
            guest = self._store.guest(model)
            try:
                reply(guest, ASKED[0], GREEDY)
            except ChatAppError as error:  # The store was emptied meanwhile.
                if not str(error).startswith(GONE):
                    raise

    def _evaluate(self) -> None:
        for model, expected in zip(self._models, self._measured, strict=True):
            if (measured := self._measure(model)) != expected:
                raise AssertionError(f"{model} measured {measured} and not {expected}")

    def _teach(self) -> None:
        """Teach a model in a child process, as the page does, and talk to it."""
        run = write_run(replace(CONFIG, model=self._models[1], epochs=1), reading_of(), self._paths)
        self._jobs.submit(run)
        end = time.monotonic() + PATIENCE
        while (status := run.state().status) != "done":
            if status not in ("queued", "running") or time.monotonic() > end:
                raise AssertionError(f"the run is {status}: {run.state().reason}")
            time.sleep(0.05)
        taught = self._load(run.id, "bfloat16")
        try:
            reply(taught, ASKED[0], GREEDY)
        finally:
            taught.engine.close()


def main(home: str, seconds: str, *models: str) -> int:
    """Do it, and tell."""
    faulthandler.enable()
    torch.set_num_threads(1)
    for eight_bits in (False, True):
        get_kernel(eight_bits).result()
    stress = Stress(Path(home), list(models))
    stress.run(float(seconds))
    print(json.dumps({"done": stress.done, "failures": stress.failures}), flush=True)
    return 1 if stress.failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
