"""The model that comes with the product: its files, how well it knows conversations it never saw, how it talks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from safetensors import safe_open

from assets.starter_data import chitchat, is_held_out
from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.evaluation.evaluate import evaluate
from chat_app.evaluation.metrics import penalty, words
from chat_app.inference.backend import reply
from chat_app.inference.loaded_model import LoadedModel, load
from chat_app.models.device import resolve_precision
from chat_app.models.loading import load_parts
from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder

pytestmark = pytest.mark.slow_file

PATHS = Paths.default()
NAMED = ["Hello", "How are you?", "What do you like to do?"]
UNSEEN = [
    "Hello friend",
    "Hi, nice to meet you!",
    "Good morning to you",
    "How is it going?",
    "How are things with you?",
    "So what did you do yesterday?",
    "What are your hobbies and interests?",
    "What music are you listening to these days?",
    "Which movie did you like best?",
    "What food do you like the most?",
    "Which city are you from?",
    "Do you have a cat?",
    "What will you do this weekend?",
    "I feel so tired.",
    "Tell me a bit about yourself.",
    "Do you enjoy reading?",
    "How has your day been?",
    "What is your favorite sport?",
    "I just came home from work.",
    "It is freezing outside!",
    "Which superpower would you choose?",
]
OPENINGS = [*NAMED, *UNSEEN]


@pytest.fixture(scope="module")
def starter() -> Iterator[LoadedModel]:
    loaded = load("starter", LoadConfig(precision="float32"), PATHS)
    yield loaded
    loaded.engine.close()


def test_it_is_small_safe_and_complete() -> None:
    folder = PATHS.starter
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 60_000_000
    assert not list(folder.glob("*.bin"))
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.bfloat16"}  # noqa: SIM118
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "gpt2"
    assert json.loads((folder / "chat_format.json").read_text())["format"] == "roles"
    card = (folder / "README.md").read_text(encoding="utf-8")
    for word in ("chitchat-dataset", "chatterbot-corpus", "MIT", "BSD", "bits per byte", "Limits"):
        assert word in card


@pytest.mark.slow
@pytest.mark.parametrize("step", [60, pytest.param(1, marks=pytest.mark.long)])
def test_it_knows_conversations_it_never_saw(step: int) -> None:
    """On the 387 held-out conversations, or every sixtieth, everything learned: at most 1.62 bits a byte."""
    held_out = [Conversation.from_turns(one["turns"]) for key, one in chitchat() if is_held_out(key)]
    assert len(held_out) == 387
    model, tokenizer, files, _ = load_parts("starter", LoadConfig(precision="float32", device="cpu"), PATHS)
    encoder = Encoder(tokenizer, get_format("roles"), files.window)
    precision = resolve_precision("automatic", "cpu")
    found = evaluate(model, encoder, held_out[::step], "all", precision=precision, most_replies=0)
    assert found.conversations == len(held_out[::step])
    assert found.bits_per_byte <= 1.62


def test_the_openings_below_were_never_learned() -> None:
    def bare(text: str) -> str:
        return " ".join(words(text)).rstrip(" .!?")

    learned = {bare(line.split("\t")[0]) for line in (PATHS.assets / "starter_openings.tsv").read_text().splitlines()}
    assert not learned & {bare(opening) for opening in UNSEEN}


@pytest.mark.parametrize("opening", OPENINGS)
def test_it_answers_an_opening(starter: LoadedModel, opening: str) -> None:
    for seed in range(3):
        said = reply(starter, Conversation.from_turns([opening]), SamplingConfig(seed=seed))
        assert said.reason == "end", said.text
        assert any(letter.isalpha() for letter in said.text)
        assert "<|" not in said.text
        assert "\ufffd" not in said.text
        assert penalty([said.text]) < 0.2


def test_it_does_not_repeat_itself_over_ten_turns(starter: LoadedModel) -> None:
    turns: list[str] = []
    replies = []
    for number, question in enumerate(OPENINGS[:10]):
        turns.append(question)
        said = reply(starter, Conversation.from_turns(turns), SamplingConfig(seed=number)).text
        turns.append(said)
        replies.append(said)
        assert "<|" not in said
    assert len(set(replies)) >= 9
    assert all(first != second for first, second in pairwise(replies))
