"""Chat schemas: every shape in which people publish conversations, marks inside texts, and whole files of JSON."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_app.conversation import Conversation
from chat_app.data.readers.corpora import dialogpt
from chat_app.data.readers.corpora.dialogpt import DialoGPTReader
from chat_app.data.readers.json import document, jsonl
from chat_app.data.readers.json.records import parse_conversation
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.text import transcript as marked
from chat_app.data.readers.text.transcript import TranscriptReader
from chat_app.data.readers.text_source import Source, open_source
from chat_app.data.readers.types import Located, Problem, RejectedError
from chat_app.errors import DataError

OPTIONS = ReadingOptions()


def stored(tmp_path: Path, content: str | bytes, name: str = "data.json") -> Source:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_source(path)


def said(found: Conversation) -> list[str]:
    """The messages as "u:text"; a * after those that are not learned."""
    return [f"{message.role[0]}{'' if message.in_loss else '*'}:{message.text}" for message in found.messages]


def short(items: Iterator[Located | Problem]) -> list[Any]:
    return [
        (item.line, said(item.conversation)) if isinstance(item, Located) else (item.line, item.reason)
        for item in items
    ]


def role(name: str, text: Any, key: str = "role", text_key: str = "content") -> dict[str, Any]:
    return {key: name, text_key: text}


HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant: See you"
TOLD = ["u:Hi", "a:Hello", "u:Bye", "a:See you"]

SHAPES: list[tuple[Any, list[str]]] = [
    # Alpaca
    ({"instruction": "Add.", "input": "1 2", "output": "3", "system": "S"}, ["s:S", "u:Add.\n1 2", "a:3"]),
    ({"instruction": "Bye", "output": "See you", "history": [["Hi", "Hello"]]}, TOLD),
    ({"instruction": "Bye", "input": "", "output": "See you", "history": []}, ["u:Bye", "a:See you"]),
    ({"prompt": "Bye", "response": "See you", "history": ["Hi", "Hello"]}, TOLD),
    # ShareGPT and its relatives
    ({"id": "x", "items": [role("human", "Hi", "from", "value"), role("gpt", "Hello", "from", "value")]}, TOLD[:2]),
    ({"conversation": [role("Human", "Hi", "from", "value"), role("ChatGPT", "Hello", "from", "value")]}, TOLD[:2]),
    ({"conversations": [role("user", "Hi", "from", "value"), role("bing", "Hello", "from", "value")]}, TOLD[:2]),
    ({"conversations": [role("SYSTEM", "S"), role("USER", "Hi"), role("ASSISTANT", "Hello")]}, ["s:S", *TOLD[:2]]),
    ({"conversation": [{"human": "Hi", "assistant": "Hello"}, {"human": "Bye", "assistant": "See you"}]}, TOLD),
    ({"conversation": [{"system": "S", "input": "Hi", "output": "Hello"}]}, ["s:S", *TOLD[:2]]),
    # speakers by name
    ({"turns": [role("Ann", "Hi", "speaker", "text"), role("Bob", "Hello", "speaker", "text")]}, TOLD[:2]),
    ({"turns": [role("USER", "Hi", "speaker", "text"), role("SYSTEM", "Hello", "speaker", "text")]}, TOLD[:2]),
    ({"dialogue": [role("Bot", "Hi", "speaker", "text"), role("A", "Bye", "speaker", "text")]}, ["a:Hi", "u:Bye"]),
    # preferences: what was chosen is learned
    ({"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"}, TOLD[:2]),
    ({"prompt": "Hi", "chosen": [role("user", "Hi"), role("assistant", "Hello")], "rejected": []}, TOLD[:2]),
    ({"prompt": "Hi", "chosen": [role("assistant", "Hello")], "rejected": []}, TOLD[:2]),
    ({"prompt": [role("user", "Hi")], "chosen": [role("assistant", "Hello")], "rejected": []}, TOLD[:2]),
    ({"chosen": [role("user", "Hi"), role("assistant", "Hello")], "rejected": []}, TOLD[:2]),
    ({"chosen": HH, "rejected": "\n\nHuman: Hi\n\nAssistant: No"}, TOLD),
    ({"question": "Hi", "system": "S", "chosen": "Hello", "rejected": "No"}, ["s:S", *TOLD[:2]]),
    # UltraChat, prompts and completions, questions and answers
    ({"id": "1", "data": ["Hi", "Hello", "Bye", "See you"]}, TOLD),
    ({"prompt": [role("user", "Hi")], "completion": [role("assistant", "Hello")]}, TOLD[:2]),
    ({"prompt": "\n\nHuman: Hi\n\nAssistant:", "completion": " Hello"}, TOLD[:2]),
    ({"question": "Hi", "answers": ["Hello", "Good day"]}, TOLD[:2]),
    ({"questions": ["Hi", "Bye"], "answers": ["Hello", "See you"]}, TOLD),
    ({"context": "It is red.", "question": "What?", "answers": {"text": ["Red"], "answer_start": [6]}},
     ["u:It is red.\nWhat?", "a:Red"]),
    ({"context": ["Hi", "Hello"], "question": "Bye", "answer": "See you"}, TOLD),
    # personas
    ({"turns": ["Hi", "Hello"], "personas": ["I ski.", "I am old."]}, ["s:I ski.\nI am old.", *TOLD[:2]]),
    ({"turns": ["Hi", "Hello"], "personas": [["I sing."], ["I ski."]]}, ["s:I ski.", *TOLD[:2]]),
    # marks in a text
    ({"text": "### Human: Hi### Assistant: Hello### Human: Bye### Assistant: See you"}, TOLD),
    ({"text": "Below is a task.\n\n### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n3</s>"},
     ["s:Below is a task.", "u:Add.\n1 2", "a:3"]),
    ({"text": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello"},
     ["s:S", *TOLD[:2]]),
    ({"text": "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] Bye [/INST] See you </s>"},
     ["s:S", *TOLD]),
    ({"text": "<|system|>\nS</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello</s>"}, ["s:S", *TOLD[:2]]),
    ({"text": "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
              "\n\nHello<|eot_id|>"}, TOLD[:2]),
    ({"text": "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>"}, TOLD[:2]),
    ({"text": HH}, TOLD),
    ({"text": "User: Hi\nBot: Hello\nUser: Bye\nBot: See you", "source": "web", "id": 3}, TOLD),
    ({"text": "Q: Hi\nA: Hello\nthere"}, ["u:Hi", "a:Hello\nthere"]),
    ({"conversation": "User: Hi\nBot: Hello"}, TOLD[:2]),
]  # fmt: skip


@pytest.mark.parametrize(("record", "expected"), SHAPES)
def test_every_schema(record: Any, expected: list[str]) -> None:
    assert said(parse_conversation(record)) == expected


def test_weights_and_parts_of_openai() -> None:
    record = {
        "messages": [
            role("system", "S"),
            role("user", [{"type": "text", "text": "Hi"}]),
            {**role("assistant", "Hello"), "weight": 0},
            role("user", "Bye"),
            {**role("assistant", "See you"), "weight": 1},
        ],
        "tools": [],
    }
    assert said(parse_conversation(record)) == ["s:S", "u:Hi", "a*:Hello", "u:Bye", "a:See you"]


MISTAKES: list[tuple[Any, str]] = [
    ({"messages": [role("user", "a"), role("tool", "b")]}, 'Message 2 has the unknown role "tool".'),
    (
        {"messages": [role("user", "a"), {**role("assistant", None), "tool_calls": [{}]}]},
        "Message 2 calls a tool instead of saying something.",
    ),
    ({"messages": [role("user", "a"), role("assistant", {"a": 1})]}, "Message 2 is an object in braces, not text."),
    ({"turns": [role(x, "a", "speaker", "text") for x in "ABC"]}, 'Message 1 has the unknown role "A".'),
    ({"instruction": "a", "output": "b", "history": "x"}, "The history is a text, not a list of turns."),
    ({"instruction": "a", "output": "b", "history": [["x"]]}, "Item 1 of the history has 1 texts."),
    ({"instruction": "a", "output": "b", "history": [["x", 1]]}, "Item 1 of the history is a number, not text."),
    ({"prompt": "a", "chosen": 3, "rejected": "b"}, "The chosen reply is a number, not text."),
    (
        {"chosen": [role("user", "Hi"), None], "rejected": []},
        "Message 2 is nothing (null), but the first one has a role.",
    ),
    ({"prompt": 3, "chosen": "b"}, "The context is a number, not text."),
    ({"chosen": "b", "rejected": "c"}, "The context is missing."),
    ({"question": "a", "answers": []}, "The list of answers is empty."),
    ({"question": "a", "answers": [3]}, "The answer is a number, not text."),
    ({"questions": ["a"], "answers": ["b", "c"]}, "There are 1 questions and 2 answers."),
    ({"questions": ["a"], "answers": 3}, "There are several questions, but the answers are a number."),
    ({"conversation": [{"human": "a", "assistant": "b"}, 3]},
     "Item 2 of the conversation is a number, not a question with its answer."),
    ({"conversation": [{"human": "a", "assistant": 3}]}, "Item 1 of the conversation is a number, not text."),
    ({"text": "### Human: ### Assistant: b"}, "Message 1 is empty."),
    ({"text": "<|im_start|>user\na<|im_end|><|im_start|>tool\nb<|im_end|>"}, 'Message 2 has the unknown role "tool".'),
    ({"text": "User: a\nBot:"}, "No message is the assistant's: there is nothing to learn in it."),
    ({"data": [3, 4]}, "Turn 1 is a number, not text."),
    ({"personas": [["a"], [3]], "turns": ["a", "b"]}, "The personas text is a number, not text."),
    (
        {f"field {number}": number for number in range(12)},
        "No field here is known to hold a conversation (found: "
        + ", ".join(f'"field {number}"' for number in range(10)) + " and 2 more).",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("record", "reason"), MISTAKES)
def test_every_mistake_is_named(record: Any, reason: str) -> None:
    with pytest.raises(RejectedError) as caught:
        parse_conversation(record)
    assert caught.value.reason == reason
    assert caught.value.advice.endswith(".")


def test_missing_fields_list_those_there() -> None:
    with pytest.raises(RejectedError) as caught:
        parse_conversation({"prompt": "a", "reward": 3})
    assert caught.value.reason == "The reply is missing."
    assert caught.value.advice == 'Write it under "reply". The fields here: "prompt", "reward".'


def test_prompts_of_marked_text() -> None:
    assert said(parse_conversation({"text": "User: Hi\nBot: Hello\nUser: Bye\nBot:"}, need_reply=False)) == TOLD[:3]


def lines_of(*values: Any) -> list[tuple[int, bytes | None]]:
    return [(number, json.dumps(value).encode()) for number, value in enumerate(values, start=1)]


def test_lines_of_a_table_are_read_by_their_columns() -> None:
    rows = [
        {"conversation_id": 1, "speaker": "user", "text": "Hi"},
        {"conversation_id": 1, "speaker": "bot", "text": "Hello"},
        {"conversation_id": 2, "speaker": "user", "text": "Bye"},
        {"conversation_id": 2, "speaker": "bot", "text": "See you"},
    ]
    found = short(jsonl.read_conversations([*lines_of(*rows), (5, b"{"), (6, b"[1]")], "a.jsonl"))
    assert [item for item in found if isinstance(item[1], list)] == [(1, TOLD[:2]), (3, TOLD[2:])]
    assert [item[0] for item in found if isinstance(item[1], str)] == [5, 6]


def test_columns_are_told_by_the_options() -> None:
    options = ReadingOptions(columns=("b=context", "a=reply"))
    found = jsonl.read_conversations(lines_of({"a": "Hello", "b": "Hi"}), "a.jsonl", options=options)
    assert short(found) == [(1, TOLD[:2])]


# Files of marked text


def test_lines_that_name_speakers(tmp_path: Path) -> None:
    text = "User: Hi\nBot: Hello\n\nUser: Bye\nBot: See\nyou\n---\nUser: alone\n"
    source = stored(tmp_path, text, "a.txt")
    assert marked.is_transcript(source)
    assert short(marked.read_conversations(source, OPTIONS)) == [
        (1, ["u:Hi", "a:Hello"]),
        (4, ["u:Bye", "a:See\nyou"]),
        (8, "No message is the assistant's: there is nothing to learn in it."),
    ]
    assert short(marked.read_conversations(source, OPTIONS, need_reply=False))[-1] == (8, ["u:alone"])


def test_empty_lines_inside_a_conversation_do_not_end_it(tmp_path: Path) -> None:
    source = stored(tmp_path, f"{HH.lstrip()}\n<|endoftext|>\n{HH}", "a.txt")
    assert short(marked.read_conversations(source, OPTIONS)) == [(1, TOLD), (11, TOLD)]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n",
            7,
        ),
        ("<|system|>S<|user|>Hi<|assistant|>Hello\n", 1),
        ("<s>[INST] <<SYS>>S<</SYS>> Hi [/INST] Hello </s>\n", 1),
        ("### System:\nS\n\n### Human:\nHi\n\n### Assistant:\nHello\n\n", 9),
    ],
)
def test_files_of_prompts(tmp_path: Path, text: str, lines: int) -> None:
    source = stored(tmp_path, text * 2, "a.txt")
    assert marked.is_transcript(source)
    assert [item[1] for item in short(marked.read_conversations(source, OPTIONS))] == [["s:S", "u:Hi", "a:Hello"]] * 2


def test_each_instruction_is_a_conversation(tmp_path: Path) -> None:
    text = "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n3\n\n"
    found = short(marked.read_conversations(stored(tmp_path, text * 2, "a.txt"), OPTIONS))
    assert found == [(1, ["u:Add.\n1 2", "a:3"]), (10, ["u:Add.\n1 2", "a:3"])]


@pytest.mark.parametrize(
    "text",
    [
        "User: Hi\tBot: Hello\n" * 3,
        '["User: a", "Bot: b"]\n',
        "Once upon a time.\n",
        "Note: x\nUser: a\n",
        "hi\thello\n",
    ],
)
def test_other_texts_are_not_marked(tmp_path: Path, text: str) -> None:
    assert not marked.is_transcript(stored(tmp_path, text, "a.txt"))


def test_bad_bytes_in_marked_text_name_their_line(tmp_path: Path) -> None:
    content = "User: é\nBot: è\nUser: à\nBot: ù\n".encode() + b"and \xe9\n"
    found = short(marked.read_conversations(stored(tmp_path, content, "a.txt"), OPTIONS))
    assert found[0] == (5, "This line has bytes that are not UTF-8 text (byte 5).")
    assert found[1] == (1, ["u:é", "a:è", "u:à", "a:ù"])


# DialoGPT's lines


def test_weighted_lines(tmp_path: Path) -> None:
    text = (
        "0.0 I would say EOS 1.0 Really ?\t1.0 I did\n"
        "1.0 Hi\t1.0 Hello\n"
        "\n"
        "1.0 Hi\t0.0 Hello\n"
        "Hi\t1.0 Hello\n"
        "1.0 Hi\n"
        "0.5 Hi\t1.0 Hello\n"
        "1.0 \t1.0 Hello\n"
    )
    source = stored(tmp_path, text, "train.tsv")
    assert dialogpt.is_dialogpt(source)
    assert short(dialogpt.read_conversations(source, OPTIONS)) == [
        (1, ["a*:I would say", "u:Really ?", "a:I did"]),
        (2, ["u:Hi", "a:Hello"]),
        (4, "Every reply has the weight 0.0: there is nothing to learn in this line."),
        (5, "Turn 1 does not begin with a weight."),
        (6, "This line has 1 column; two are needed."),
        (7, "Turn 1 has the weight 0.5."),
        (8, "Turn 1 is empty."),
    ]
    for other in ("Hi\tHello\n", "1.0 Hi\n", "3.5 stars\t1.0 yes\n"):
        assert not dialogpt.is_dialogpt(stored(tmp_path, other, "a.tsv"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4)
    | st.sampled_from(["user", "assistant", "User: a\nBot: b", "### Human: a ### Assistant:", "[INST] a [/INST]"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["messages", "conversation", "items", "data", "rows", "row", "train", "test", "columns", "role", "from",
             "speaker", "content", "text", "prompt", "chosen", "completion", "history", "questions", "answers",
             "personas", "personality", "utterances", "candidates", "free_messages", "guided_messages", "dialog", "act",
             "conv_id", "speaker_idx", "utterance", "previous_utterance", "0", "1"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=json_values)
def test_any_json_gives_conversations_problems_or_a_data_error(tmp_path: Path, value: Any) -> None:
    for read in (
        lambda: jsonl.read_conversations(lines_of(value, value), "a.jsonl", options=OPTIONS),
        lambda: document.read_value(value, "a.json", OPTIONS),
        lambda: document._read_streamed(stored(tmp_path, json.dumps(value)), OPTIONS, True),
    ):
        with contextlib.suppress(DataError):
            assert all(isinstance(item, Located | Problem) for item in read())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.lists(
        st.sampled_from(["User: ", "Bot: ", "\n", "\n\n", "### Human:", "<|im_start|>", "user", "[INST]", "[/INST]",
                         "---", "0.0 a", "\t", "1.0 ", " EOS ", "x", "</s>", "<s>", "<|endoftext|>"]),
        min_size=1, max_size=20,
    ).map("".join)
)  # fmt: skip
def test_any_marked_text_gives_conversations_or_problems(tmp_path: Path, content: str) -> None:
    source = stored(tmp_path, content, "a.txt")
    for reader in (TranscriptReader, DialoGPTReader):
        reader.sniff(InputFile(source.path, source.name, OPTIONS))
        assert all(isinstance(item, Located | Problem) for item in reader(source, OPTIONS).read())
