"""Replies as people see them: from tiny models that were really taught one conversation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.errors import ChatAppError, DataError
from chat_app.inference.backend import ReplyEnd, ReplyRequest, reply, stream_reply
from chat_app.inference.generation import generate_greedily
from chat_app.inference.loaded_model import LoadedModel, load
from chat_app.inference.reply_text import ReplyText
from chat_app.tokenization.chat_formats import FORMATS, get_format
from chat_app.tokenization.encoder import Encoder
from chat_app.tokenization.format_detection import write_chat_format

pytestmark = pytest.mark.slow_file

LONG = 180
GREEDY = SamplingConfig(temperature=0, repetition_penalty=1, max_new_tokens=60)
HELLO = Conversation.from_turns(["Hello!"])
ANSWER = "Hi 👋 there, naïve friend. How are you?"
TALK = Conversation.from_turns(["Hello!", ANSWER, "Fine.", "Very good 🎉"])


@pytest.fixture(scope="module")
def taught_folder(tmp_path_factory) -> Callable[[str, Any, Callable[..., Any]], Path]:
    """Saved models that know TALK by heart; each is taught once."""
    made: dict[str, Path] = {}

    def teach(format_name: str, tokenizer: Any, make_model: Callable[..., Any]) -> Path:
        if format_name in made:
            return made[format_name]
        encoder = Encoder(tokenizer, get_format(format_name), 128)
        model = make_model(len(tokenizer), width=64)
        rows = encoder.examples(TALK)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(120):
            loss = torch.zeros(())
            for row in rows:
                types = torch.tensor([row.types]) if row.types else None
                ids, labels = torch.tensor([row.ids]), torch.tensor([row.labels])
                loss = loss + model(ids, token_type_ids=types, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert generate_greedily(model, encoder, HELLO, 60) == ANSWER
        folder = tmp_path_factory.mktemp("taught") / format_name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_chat_format(folder, encoder.format, encoder.special_tokens)
        made[format_name] = folder
        return folder

    return teach


@pytest.fixture
def taught(tmp_path, tiny_tokenizer, make_model, taught_folder) -> Iterator[Callable[..., LoadedModel]]:
    """Loads a model that knows TALK by heart."""
    opened: list[LoadedModel] = []

    def make(format_name: str = "roles") -> LoadedModel:
        folder = taught_folder(format_name, tiny_tokenizer, make_model)
        opened.append(load(str(folder), LoadConfig(precision="float32", device="cpu"), Paths(tmp_path / "home")))
        return opened[-1]

    yield make
    for one in opened:
        one.engine.close()


@pytest.fixture
def random_model(tiny_folder, tmp_path) -> Iterator[LoadedModel]:
    loaded = load(str(tiny_folder), LoadConfig(precision="float32", device="cpu"), Paths(tmp_path / "home"))
    yield loaded
    loaded.engine.close()


def all_of(
    loaded: LoadedModel, conversation: Conversation, sampling: SamplingConfig, prefix: str = "", **more: Any
) -> tuple[list[str], ReplyEnd]:
    """The texts of the deltas and the end, which must agree."""
    *events, end = stream_reply(loaded, ReplyRequest(conversation, sampling, prefix), **more)
    assert isinstance(end, ReplyEnd)
    deltas = [event.text for event in events]
    assert "".join(deltas) == end.text == end.text.strip()
    assert "" not in deltas
    return deltas, end


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "template"])
def test_every_format_answers_what_it_learned(taught, name):
    loaded = taught(name)
    assert loaded.detected_format.format == name
    deltas, end = all_of(loaded, HELLO, GREEDY)
    assert (end.text, end.reason) == (ANSWER, "end")
    assert len(deltas) > 5
    assert end.prompt_tokens == len(loaded.encoder.prompt(HELLO).ids)
    assert end.window == 128
    assert 0 < end.first_token_seconds <= end.seconds
    assert end.tokens_per_second == end.reply_tokens / end.seconds
    second = all_of(loaded, Conversation(TALK.messages[:3]), GREEDY)[1]
    assert second.text == "Very good 🎉"
    assert all_of(loaded, HELLO, GREEDY)[1].text == ANSWER


class TestEnds:
    @pytest.mark.parametrize(
        ("stop", "expected"),
        [
            (("there",), "Hi 👋"),
            ((" friend. How",), "Hi 👋 there, naïve"),
            (("never", "How are", "friend. How"), "Hi 👋 there, naïve"),
            (("How are", "friend. How are you"), "Hi 👋 there, naïve friend."),
            (("👋",), "Hi"),
            (("H",), ""),
            (("you?",), "Hi 👋 there, naïve friend. How are"),
        ],
    )
    def test_stop_texts(self, taught, stop, expected):
        end = all_of(taught(), HELLO, replace(GREEDY, stop=stop))[1]
        assert (end.text, end.reason) == (expected, "stop")

    def test_a_stop_that_only_begins_is_shown(self, taught):
        end = all_of(taught(), HELLO, replace(GREEDY, stop=("you? Well",)))[1]
        assert (end.text, end.reason) == (ANSWER, "end")

    def test_the_longest_reply(self, taught):
        loaded = taught()
        for limit in range(1, 12):
            end = all_of(loaded, HELLO, replace(GREEDY, max_new_tokens=limit))[1]
            assert (end.reason, end.reply_tokens) == ("length", limit)
            assert ANSWER.startswith(end.text)
            assert "\ufffd" not in end.text

    def test_the_window(self, random_model):
        end = all_of(random_model, Conversation.from_turns(["a b c d " * 30]), replace(GREEDY, max_new_tokens=4000))[1]
        assert end.reason in ("window", "end")
        assert end.prompt_tokens <= 64
        assert end.prompt_tokens + end.reply_tokens <= 128
        assert end.cut_tokens > 0

    def test_an_event_cancels(self, taught):
        loaded, cancel_event, passes = taught(), threading.Event(), []

        really = loaded.engine._runner.step

        def hold(chunks: Any) -> Any:
            passes.append(1)
            assert len(passes) < 6 or cancel_event.wait(LONG)
            return really(chunks)

        loaded.engine._runner.step = hold
        stream = stream_reply(loaded, ReplyRequest(HELLO, GREEDY), cancel_event)
        first = next(stream)
        cancel_event.set()
        *rest, end = stream
        assert end.reason == "cancelled"
        assert end.text == "".join(delta.text for delta in (first, *rest))
        assert ANSWER.startswith(end.text)
        assert len(passes) <= 6
        assert loaded.engine.wait_idle(LONG)

    def test_cancelled_before_the_first_token(self, taught):
        cancel_event = threading.Event()
        cancel_event.set()
        deltas, end = all_of(taught(), HELLO, GREEDY, cancel_event=cancel_event)
        assert (deltas, end.text, end.reason, end.reply_tokens) == ([], "", "cancelled", 0)

    def test_closing_frees_the_engine(self, taught):
        loaded = taught()
        stream = stream_reply(loaded, ReplyRequest(HELLO, GREEDY))
        next(stream)
        stream.close()
        assert loaded.engine.wait_idle(LONG)


class TestPrompt:
    def test_a_forced_beginning(self, taught):
        deltas, end = all_of(taught(), HELLO, GREEDY, prefix=" Hi 👋 ")
        assert (deltas[0], end.text) == ("Hi 👋", ANSWER)
        assert all_of(taught("sep"), HELLO, GREEDY, prefix="Hi")[1].text == ANSWER

    def test_a_beginning_that_is_too_long(self, random_model):
        with pytest.raises(DataError, match="beginning"):
            reply(random_model, HELLO, GREEDY, prefix="a " * 100)

    def test_old_turns_are_dropped_for_the_reply(self, random_model):
        long = Conversation.from_turns(["Hello, how are you today?"] * 21)
        end = all_of(random_model, long, replace(GREEDY, max_new_tokens=30))[1]
        assert end.dropped_turns > 0
        assert end.prompt_tokens <= 128 - 30

    def test_remembered_turns(self, random_model):
        long = Conversation.from_turns(["Hello.", "I am fine.", "Thank you."], system="Be kind.")
        prompt = random_model.encoder.prompt
        for turns, expected in ((1, long.keep_latest(1)), (2, long.keep_latest(2)), (0, long), (50, long)):
            end = reply(random_model, long, replace(GREEDY, remembered_turns=turns, max_new_tokens=2))
            assert end.prompt_tokens == len(prompt(expected).ids)

    def test_the_user_must_have_spoken(self, random_model):
        with pytest.raises(DataError, match="assistant"):
            reply(random_model, Conversation.from_turns(["Hello.", "Hi."]), GREEDY)

    @pytest.mark.parametrize("text", ["", " ", "\ud83d", "<|End|><|USER|>", "\0", "🏳️‍🌈" * 9, "‏שלום", "\n\n"])
    def test_whatever_people_type(self, random_model, text):
        all_of(random_model, Conversation.from_turns([text]), replace(GREEDY, max_new_tokens=5))


class TestWhatIsShown:
    def test_daring_replies_are_whole_text(self, random_model):
        """A model of random weights writes broken bytes and special tokens wherever it may."""
        specials = set(random_model.tokenizer.all_special_tokens)
        for seed in range(40):
            sampling = SamplingConfig(temperature=2, top_p=1, top_k=0, seed=seed, max_new_tokens=40, stop=("e", "zz"))
            text = all_of(random_model, HELLO, sampling)[1].text
            assert "\ufffd" not in text
            assert "e" not in text
            assert not any(special in text for special in specials)
            text.encode("utf-8")

    @pytest.mark.parametrize(
        "text", ["aaab", "Hello, how are you?", "👋👋 é 🏳️‍🌈 ok", "a\n\n b  c", "שלום עולם", "  x  ", "日本語のテキスト"]
    )
    @pytest.mark.parametrize("stop", [(), ("aab",), ("b", "\n b"), ("🌈",), ("are", "are you"), ("ト",)])
    def test_token_by_token_is_the_same_as_at_once(self, tiny_tokenizer, text, stop):
        whole = text[: min((text.find(one) for one in stop if one in text), default=len(text))].strip()
        shown = ReplyText(tiny_tokenizer, stop, [])
        deltas = []
        for token in tiny_tokenizer.encode(text):
            deltas.append(shown.add(token))
            if shown.is_stopped:
                break
        deltas.append(shown.finish())
        assert "".join(deltas) == shown.text == whole
        assert shown.is_stopped == any(one in text for one in stop)

    def test_an_unfinished_character_is_dropped(self, tiny_tokenizer):
        tokens = tiny_tokenizer.encode("ok 👋")
        for keep in range(1, len(tokens)):
            shown = ReplyText(tiny_tokenizer, (), [])
            for token in tokens[:keep]:
                shown.add(token)
            shown.finish()
            assert "ok".startswith(shown.text)

    def test_broken_bytes_do_not_hide_what_follows(self, tiny_tokenizer):
        half = tiny_tokenizer.encode("👋")[:2]
        shown = ReplyText(tiny_tokenizer, (), [])
        for token in [*half, *tiny_tokenizer.encode("fine")]:
            shown.add(token)
        shown.finish()
        assert shown.text == "fine"


def test_two_visitors_get_their_own_replies(taught):
    loaded = taught()
    ways = [HELLO, Conversation(TALK.messages[:3])] * 4
    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(lambda one: reply(loaded, one, GREEDY), ways))
    assert [end.text for end in ends] == [ANSWER, "Very good 🎉"] * 4


def test_an_unloaded_model_is_a_sentence(taught):
    loaded = taught()
    stream = stream_reply(loaded, ReplyRequest(HELLO, GREEDY))
    loaded.engine.close()
    with pytest.raises(ChatAppError, match="no longer loaded"):
        next(stream)
