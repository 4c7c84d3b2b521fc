"""Chat templates are programs of strangers: each kind of harm ends in a sentence, and the next template is rendered."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from chat_app.errors import FormatError
from chat_app.tokenization import template_renderer
from chat_app.tokenization.chat_formats import FORMATS
from chat_app.tokenization.template_renderer import render_template

MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": 'Hi <|end|> & "you" \u4f60\u597d'},
    {"role": "assistant", "content": "Hello\nthere"},
]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GENERATION = (
    "{{ bos_token }}{% for message in messages %}{% if loop.index > 9 %}{% break %}{% endif %}"
    "{% generation %}{{ message | tojson }}{% endgeneration %}{{ eos_token }}{% endfor %}"
)
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
GREEDY = (
    "{% set all = namespace(text='a' * 1000) %}{% for a in range(40) %}{% set all.text = all.text * 2 %}{% endfor %}"
)


class Tokenizer:
    """As much of a tokenizer as a template needs; it must not render by itself."""

    def __init__(self, template: Any):
        self.chat_template = template
        self.special_tokens_map = {"bos_token": "<s>", "eos_token": "</s>"}


def children() -> set[int]:
    """The running processes that render, those of other tests included."""
    gc.collect()
    return {one.pid for one in psutil.Process().children() if "template_child" in " ".join(one.cmdline())}


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("template", [CHATML, GENERATION])
def test_it_writes_what_transformers_writes(tiny_tokenizer: Any, template: str, is_open: bool) -> None:
    tiny_tokenizer.chat_template = template
    expected = tiny_tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=is_open)
    assert render_template(tiny_tokenizer, MESSAGES, is_open) == expected


def test_our_own_templates_need_no_process(tiny_tokenizer: Any) -> None:
    before = children()
    for one in FORMATS.values():
        if one.chat_template:
            tiny_tokenizer.chat_template = one.chat_template
            assert "Hello\nthere" in render_template(tiny_tokenizer, MESSAGES)
    assert children() == before


def test_one_process_serves_a_tokenizer_and_ends_with_it() -> None:
    before, tokenizer = children(), Tokenizer(CHATML)
    texts = {render_template(tokenizer, MESSAGES) for _ in range(5)}
    (pid,) = children() - before
    assert len(texts) == 1
    tokenizer.chat_template = GENERATION
    assert render_template(tokenizer, MESSAGES).startswith("<s>{")
    del tokenizer
    gc.collect()
    assert not psutil.pid_exists(pid)
    assert children() == before


@pytest.mark.parametrize("make", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_has_a_process_of_its_own(make: Any) -> None:
    first = Tokenizer(CHATML)
    text = render_template(first, MESSAGES)
    other = make(first)
    del first
    gc.collect()
    assert render_template(other, MESSAGES) == text


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (ENDLESS, "did not end within"),
        ("{{ 'a' * 999999999 }}", "template"),
        (GREEDY, "template"),
        ("{% for a in range(2000) %}{{ 'abcdefgh' * 100 }}{% endfor %}", "writes far too much"),
        ("{{ raise_exception('No system\n text!') }}", r"refuses this conversation \(No system text!\)"),
        ("{{ broken", "refuses this conversation"),
        ("{{ ''.__class__.__mro__ }}", "refuses this conversation"),
        ("{% if 1 %}" * 5000 + "{% endif %}" * 5000, "template"),
        ("a" * 300_000, "far too long"),
        (5, "no text"),
        ({"other": CHATML}, "no chat template"),
        (None, "no chat template"),
    ],
)
def test_what_a_template_may_not(template: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_renderer, "MOST_SECONDS", 2.0)
    tokenizer, before = Tokenizer(template), children()
    with pytest.raises(FormatError, match=words):
        render_template(tokenizer, MESSAGES)
    tokenizer.chat_template = {"default": CHATML}
    assert render_template(tokenizer, MESSAGES).startswith("<|im_start|>system")
    assert len(children() - before) == 1


def test_the_process_is_given_no_secret_and_may_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    tokenizer, before = Tokenizer(CHATML), children()
    render_template(tokenizer, MESSAGES)
    (pid,) = children() - before
    assert "HF_TOKEN" not in psutil.Process(pid).environ()


def test_a_killed_process_is_a_sentence_and_is_started_again() -> None:
    tokenizer, before = Tokenizer(CHATML), children()
    text = render_template(tokenizer, MESSAGES)
    (pid,) = children() - before
    psutil.Process(pid).kill()
    with pytest.raises(FormatError, match="crash"):
        render_template(tokenizer, MESSAGES)
    assert render_template(tokenizer, MESSAGES) == text


def test_threads_share_a_renderer() -> None:
    tokenizer, wrong = Tokenizer(CHATML), []

    def ask(number: int) -> None:
        for turn in range(30):
            said = f"{number} {turn}"
            if f"<|im_start|>user\n{said}<|im_end|>" not in render_template(
                tokenizer, [{"role": "user", "content": said}]
            ):
                wrong.append(said)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong
