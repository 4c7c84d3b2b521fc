"""The likelihood of tokens: against a plain forward pass, and their decoder and bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.config.sampling import SamplingConfig
from chat_app.conversation import Conversation
from chat_app.inference.backend import ReplyEnd, ReplyRequest, TextDelta, stream_reply
from chat_app.inference.loaded_model import load
from chat_app.inference.logprobs import LogprobRecorder, TokenDecoder
from chat_app.inference.sampling import Logits, ReplyPenalties

HELLO = Conversation.from_turns(["Hello"])


def test_each_token_has_the_logprob_of_a_plain_forward_pass(tmp_path: Path, tiny_folder: Path, tiny_model: Any) -> None:
    loaded = load(str(tiny_folder), LoadConfig(precision="float32", device="cpu"), Paths(tmp_path))
    sampling = SamplingConfig(seed=4, max_new_tokens=20, repetition_penalty=1.3, presence_penalty=1)
    *deltas, end = stream_reply(loaded, ReplyRequest(HELLO, sampling, logprobs=4))
    loaded.engine.close()
    assert isinstance(end, ReplyEnd)
    deltas = [delta for delta in deltas if isinstance(delta, TextDelta) and delta.tokens is not None]
    assert "".join(delta.text for delta in deltas) == end.text
    tokens = [token for delta in deltas for token in delta.tokens or ()]
    assert end.text in b"".join(bytes(token.bytes or ()) for token in tokens).decode("utf-8", "ignore")

    decoder = TokenDecoder(loaded.tokenizer)
    numbers = {decoder.to_bytes(number): number for number in reversed(range(len(loaded.tokenizer)))}
    reference = _with_rows(tiny_model, len(loaded.tokenizer))
    ids = list(loaded.encoder.prompt(HELLO).ids)
    for token in tokens:
        with torch.inference_mode():
            expected = reference(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        number = numbers[bytes(token.bytes or ())]
        assert token.logprob == pytest.approx(float(expected[number]), abs=1e-4)
        best = torch.topk(expected, 4).values.tolist()
        assert [one.logprob for one in token.top] == pytest.approx(best, abs=1e-4)
        ids.append(number)


def _with_rows(model: Any, rows: int) -> Any:
    """The model as loading makes it: a row for each mark, the mean of the rows that were there."""
    from chat_app.models.loading import fit_embeddings

    class Sized:
        def __len__(self) -> int:
            return rows

    fit_embeddings(model, Sized())
    return model


def test_a_reply_is_the_same_with_and_without_logprobs(tmp_path: Path, tiny_folder: Path) -> None:
    loaded = load(str(tiny_folder), LoadConfig(precision="float32", device="cpu"), Paths(tmp_path))
    sampling = SamplingConfig(seed=4, max_new_tokens=30)
    texts = []
    for logprobs in (None, 0, 5):
        *_, end = stream_reply(loaded, ReplyRequest(HELLO, sampling, logprobs=logprobs))
        assert isinstance(end, ReplyEnd)
        texts.append(end.text)
    loaded.engine.close()
    assert len(set(texts)) == 1


def test_tokens_of_a_stop_text_have_no_logprobs(tmp_path: Path, tiny_folder: Path) -> None:
    loaded = load(str(tiny_folder), LoadConfig(precision="float32", device="cpu"), Paths(tmp_path))
    sampling = SamplingConfig(seed=4, max_new_tokens=20)
    *_, whole = stream_reply(loaded, ReplyRequest(HELLO, sampling))
    assert isinstance(whole, ReplyEnd)
    stop = whole.text[len(whole.text) // 2 :]
    stopping = SamplingConfig(seed=4, max_new_tokens=20, stop=(stop,))
    *deltas, end = stream_reply(loaded, ReplyRequest(HELLO, stopping, logprobs=0))
    loaded.engine.close()
    assert isinstance(end, ReplyEnd)
    tokens = [token for delta in deltas if isinstance(delta, TextDelta) for token in delta.tokens or ()]
    assert 0 < len(tokens) < end.reply_tokens


def test_tokens_of_parts_of_characters_have_bytes(tiny_tokenizer: Any) -> None:
    text = "Grüße 👋 你好"
    ids = tiny_tokenizer(text)["input_ids"]
    decoder = TokenDecoder(tiny_tokenizer)
    assert b"".join(decoder.to_bytes(one) for one in ids) == text.encode()
    told = decoder.describe(ids[-1], (float("-inf"), [(ids[0], -0.5)]))
    assert (told.logprob, told.token) == (-9999.0, "\ufffd")
    assert told.top[0].bytes == tuple(decoder.to_bytes(ids[0]))
    assert decoder.to_bytes(tiny_tokenizer.eos_token_id) == b"<|endoftext|>"
    assert decoder.to_bytes(10_000) == b""


def test_tokens_of_sentencepiece_have_their_spaces() -> None:
    backend = Tokenizer(models.BPE({"▁Hello": 0, "<0xC3>": 1, "<0xA4>": 2, "<unk>": 3}, [], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    decoder = TokenDecoder(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert b"".join(decoder.to_bytes(one) for one in (0, 1, 2)) == " Helloä".encode()


def test_more_are_asked_for_than_there_are() -> None:
    recorder = LogprobRecorder(20)
    recorder.add(np.array([0, -np.inf], np.float32), 0)
    assert recorder.take() == (0.0, [(0, 0.0), (1, float("-inf"))])


@pytest.mark.parametrize(("presence", "frequency"), [(0.5, 0), (0, 0.3), (1.5, -0.5), (1, -1), (-2, 2)])
def test_penalties_are_openais(presence: float, frequency: float, make_logits: Callable[[], Logits]) -> None:
    """score - count * frequency - (count > 0) * presence, for each token of the reply."""
    penalties, written = ReplyPenalties(presence, frequency), []
    for token in (3, 5, 3, 3, 7, 5):
        logits = make_logits()
        counts = np.bincount(np.array(written, np.int64), minlength=len(logits))
        expected = logits - counts * frequency - (counts > 0) * presence
        assert penalties.apply(logits, written) == pytest.approx(expected, abs=1e-6)
        written.append(token)


@pytest.fixture
def make_logits() -> Callable[[], Logits]:
    generator = np.random.default_rng(0)
    return lambda: generator.standard_normal(10, np.float32)
