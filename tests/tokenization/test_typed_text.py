"""What somebody types never becomes a special token, and otherwise is what the whole tokenizer makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from chat_app.tokenization.chat_formats import get_format
from chat_app.tokenization.encoder import Encoder
from tests.tokenization.test_chat_formats import gpt2_tokenizer

WORDS = ["the", "cat", "sat", "on", "a", "mat", "a note", "x"]


def of_gpt2() -> Any:
    """With tokens of every kind: normalized or not, taking the spaces around them, one word, in the vocabulary."""
    tokenizer = gpt2_tokenizer()
    tokenizer.add_tokens([AddedToken("<note>", normalized=False), AddedToken("cat", lstrip=True, single_word=True)])
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return tokenizer


def of_words() -> Any:
    """With a normalizer, truncation and padding, and a post-processor that would add tokens."""
    pieces = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", *WORDS, "c", "##a", "##t", "<", ">", "|", "note", "/"]
    backend = Tokenizer(models.WordPiece({one: number for number, one in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_tokens([AddedToken("<Note>", normalized=True), AddedToken("sat", rstrip=True)])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    backend.enable_truncation(3)
    backend.enable_padding(length=20, pad_id=3, pad_token="[PAD]")
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[SEP]", **names)


def of_sentences() -> Any:
    """With spaces as underscores, the first of which is not written."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((f"▁{word}", -1.0) for word in WORDS), ("▁", -2.0), ("a", -2.5)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


def parsed(tokenizer: Any, unwanted: set[str]) -> Tokenizer:
    """A copy whose special tokens were taken out of what the tokenizer is saved as."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [one for one in state["added_tokens"] if not one["special"] and one["content"] not in unwanted]
    copy = Tokenizer.from_str(json.dumps({**state, "added_tokens": kept, "post_processor": None}))
    copy.no_truncation()
    copy.no_padding()
    return copy


KINDS: list[Callable[[], Any]] = [of_gpt2, of_words, of_sentences]
SPELLED = ["<|endoftext|>", "<|USER|>", "<|End|>", "<note>", "<Note>", "[CLS]", "[SEP]", "[PAD]", "</s>", "<unk>"]
PIECES = st.one_of(st.sampled_from([*SPELLED, *WORDS, " ", "  ", "\n", "é", "Ⅷ", "🙂"]), st.text(max_size=5))


@pytest.fixture(scope="module", params=KINDS)
def pair(request: Any) -> tuple[Encoder, Tokenizer]:
    encoder = Encoder(request.param(), get_format("roles"), 64)
    return encoder, parsed(encoder.tokenizer, set(encoder.special_tokens.values()))


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.lists(PIECES, max_size=6).map("".join), min_size=1, max_size=3))
def test_typed_text_is_what_a_copy_without_special_tokens_makes_of_it(
    pair: tuple[Encoder, Tokenizer], texts: list[str]
) -> None:
    encoder, copy = pair
    wanted = [copy.encode(text, add_special_tokens=False).ids for text in texts]
    assert [encoder.text_ids(text) for text in texts] == wanted
    encoder.prepare(texts)
    assert [encoder.text_ids(text) for text in texts] == wanted
    encoder.forget()
    assert [encoder.text_of(ids) for ids in wanted] == [copy.decode(ids, skip_special_tokens=False) for ids in wanted]
    assert not {one for ids in wanted for one in ids} & set(encoder.special_token_ids.values())


def test_tokens_added_after_special_ones_keep_their_ids() -> None:
    tokenizer = gpt2_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|call|>", "<|done|>"]})
    tokenizer.add_tokens([AddedToken("<result>", normalized=False)])
    encoder = Encoder(tokenizer, get_format("roles"), 64)
    assert tokenizer.convert_tokens_to_ids(["<|call|>", "<|done|>", "<result>"]) == [50257, 50258, 50259]
    assert encoder.text_ids("<result>") == [50259]
    for text in ("<|call|><result><|End|><|done|>", "a <|done|> <result>"):
        ids = encoder.text_ids(text)
        assert ids.count(50259) == 1
        assert max(one for one in ids if one != 50259) < 50256
        assert encoder.text_of(ids) == text


def test_the_tokenizer_itself_stays_what_it_was() -> None:
    tokenizer = of_words()
    before = tokenizer.backend_tokenizer.to_str()
    encoder = Encoder(tokenizer, get_format("eos"), 64)
    assert encoder.text_ids("the cat sat [SEP]")
    assert tokenizer.backend_tokenizer.to_str() == before
    assert tokenizer.backend_tokenizer.encode("[SEP]").ids[:3] == [1, 2, 2]
