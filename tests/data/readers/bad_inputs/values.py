"""Bad JSON: what its grammar forbids, what it allows and nobody expects, and wrong types at every place of a record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.data.readers.bad_inputs.case import JSONL, Bad, jsonl, lines

GOOD = '["a", "b"]'

# One valid record of every schema that is read a record a line.
SCHEMAS: dict[str, Any] = {
    "list": ["Hello", "Hi", "When?", "At nine."],
    "turns": {"turns": ["Hello", "Hi"]},
    "dialog": {"dialog": ["Hello", "Hi"], "act": [1, 2], "emotion": [0, 0]},
    "messages": {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"},
                              {"role": "assistant", "content": "Hi", "weight": 0},
                              {"role": "user", "content": "When?"},
                              {"role": "assistant", "content": "At nine.", "weight": 1}]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]},
                           {"role": "assistant", "content": "Hi"}]},
    "tools": {"messages": [{"role": "user", "content": "Hello"},
                           {"role": "assistant", "content": "Hi", "tool_calls": None}], "tools": [], "functions": []},
    "sharegpt": {"id": "1", "system": "Be kind.",
                 "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]},
    "speakers": {"dialogue": [{"speaker": "A", "text": "Hello"}, {"speaker": "B", "text": "Hi"}]},
    "bare messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}],
    "alpaca": {"instruction": "Translate", "input": "Haus", "output": "house", "system": "You translate.",
               "history": [["Hello", "Hi"]]},
    "pair": {"prompt": "Hello", "completion": "Hi"},
    "prompt of messages": {"prompt": [{"role": "user", "content": "Hello"}],
                           "completion": [{"role": "assistant", "content": "Hi"}]},
    "context": {"context": ["Hello", "Hi", "When?"], "response": "At nine."},
    "question": {"context": "The shop is red.", "question": "Which colour?", "answers": {"text": ["red"]}},
    "questions": {"context": "It is red.", "questions": ["Colour?", "Size?"], "answers": {"input_text": ["Red", "L"]}},
    "preference": {"prompt": "Hello", "chosen": "Hi", "rejected": "Go away"},
    "preference of messages": {"chosen": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}],
                               "rejected": [{"role": "user", "content": "Hello"}]},
    "marked": {"text": "### Human: Hello ### Assistant: Hi"},
    "chatml": {"text": "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi<|im_end|>"},
    "pairs": {"conversation": [{"human": "Hello", "assistant": "Hi", "system": "Be kind."}]},
    "personachat": {"personality": ["i like tea ."], "utterances": [
        {"history": ["hello"], "candidates": ["no", "hi"]},
        {"history": ["hello", "hi", "tea ?"], "candidates": ["yes"]}]},
    "personachat row": {"personality": ["i like tea ."], "history": ["hello"], "candidates": ["no", "hi"],
                        "conv_id": 1, "utterance_idx": 0},
    "blended": {"personas": [["I am A."], ["I am B."]], "free_turker_utterance": "Hello",
                "guided_turker_utterance": "Hi", "dialog": [[0, "Hm"], [1, "Yes"]]},
    "blended row": {"personas": ["I am B."], "previous_utterance": ["Hello", "Hi"], "free_messages": ["Hm"],
                    "guided_messages": ["Yes"], "context": "wizard", "suggestions": {}},
    "empathetic row": {"conv_id": "h:1", "utterance_idx": "1", "context": "sad", "prompt": "It rains_comma_",
                       "speaker_idx": "1", "utterance": "Hello"},
    "flat row": {"id": 3, "thema": "x", "frage": "Hallo", "antwort": "Ja"},
    "message row": {"conversation_id": 1, "speaker": "user", "text": "Hello", "time": "2024-01-01T10:00:00"},
}  # fmt: skip

# One valid file of every schema that is one JSON value.
WHOLE: dict[str, Any] = {
    "telegram": {"name": "Ben", "type": "personal_chat", "id": 7, "messages": [
        {"id": 1, "type": "message", "date": "2024-01-01T10:00:00", "date_unixtime": "1704103200", "from": "Ann",
         "from_id": "user1", "text": "Hello"},
        {"id": 2, "type": "message", "date": "2024-01-01T10:01:00", "date_unixtime": "1704103260", "from": "Ben",
         "from_id": "user7", "text": ["Hi ", {"type": "bold", "text": "there"}]}]},
    "telegram account": {"chats": {"list": [{"name": "Ben", "type": "personal_chat", "id": 7, "messages": [
        {"id": 1, "type": "message", "date": "2024-01-01T10:00:00", "from": "Ann", "text": "Hello"},
        {"id": 2, "type": "message", "date": "2024-01-01T10:01:00", "from": "Ben", "text": "Hi"}]}]}},
    "discord": {"guild": {"name": "G"}, "channel": {"name": "c"}, "exportedAt": "2024-01-02", "messages": [
        {"id": "1", "type": "Default", "timestamp": "2024-01-01T10:00:00+00:00", "content": "Hello <@2>",
         "author": {"id": "1", "name": "ann", "nickname": "Ann", "isBot": False},
         "mentions": [{"id": "2", "name": "ben"}]},
        {"id": "2", "type": "Reply", "timestamp": "2024-01-01T10:01:00+00:00", "content": "Hi",
         "author": {"id": "2", "name": "ben", "nickname": "Ben", "isBot": True}, "mentions": []}]},
    "slack": [{"type": "message", "user": "U1", "ts": "1704103200.000100", "text": "Hello",
               "user_profile": {"display_name": "Ann"}},
              {"type": "message", "user": "U2", "ts": "1704103260.000100", "text": "Hi", "subtype": None,
               "bot_profile": {"name": "Ben"}}],
    "data": {"version": "1", "data": [{"prompt": "Hello", "completion": "Hi"}, {"prompt": "Bye", "completion": "Yes"}]},
    "parts": {"train": [{"prompt": "Hello", "completion": "Hi"}], "valid": [{"prompt": "Bye", "completion": "Yes"}]},
    "viewer": {"features": [], "rows": [{"row_idx": 0, "row": {"prompt": "Hello", "completion": "Hi"}}]},
    "split table": {"columns": ["prompt", "completion"], "data": [["Hello", "Hi"], ["Bye", "Yes"]]},
    "columns": {"prompt": {"0": "Hello", "1": "Bye"}, "completion": {"0": "Hi", "1": "Yes"}},
    "by name": {"one": {"prompt": "Hello", "completion": "Hi"}, "two": {"prompt": "Bye", "completion": "Yes"}},
    "personachat": {"train": [SCHEMAS["personachat"]], "valid": [SCHEMAS["personachat"]]},
}  # fmt: skip

WRONG: tuple[Any, ...] = (None, True, 7, 1e300, -0.5, "", " ", "\x00", [], {}, [[]], {"": None}, [None], ["x", 7], "x")

# Enough where each of them is a file of its own.
FEW: tuple[Any, ...] = (None, 7, "", [[]], {"": None})


def mutants(value: Any, wrong: tuple[Any, ...] = WRONG) -> Iterator[Any]:
    """Copies of a value in which one place holds something else, or is missing."""
    yield from wrong
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: one for name, one in value.items() if name != key}
            for changed in mutants(inner, wrong):
                yield {**value, key: changed}
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield value[:place] + value[place + 1 :]
            for changed in mutants(inner, wrong):
                yield [*value[:place], changed, *value[place + 1 :]]


def cases() -> Iterator[Bad]:
    """All of them, but for the wrong types, of which there are thousands."""
    broken = {
        "nan": '["a", NaN]', "infinity": '["a", -Infinity]', "huge-number": '["a", 1e999]', "hex": '["a", 0x1F]',
        "single-quotes": "['a', 'b']", "smart-quotes": "[“a”, “b”]", "no-quotes": "{prompt: a, completion: b}",
        "python": "{'prompt': None, 'completion': True}", "comma-inside": '["a", "b",]', "comma-after": '["a", "b"],',
        "two-commas": '["a",, "b"]', "no-comma": '["a" "b"]', "no-colon": '{"prompt" "a"}',
        "comment": '["a", "b"] // hi',
        "hash": "# a comment", "two-values": '["a", "b"] ["c", "d"]',
        "open": '["a", "b"', "closed-twice": '["a", "b"]]',
        "wrong-bracket": '["a", "b"}', "bad-escape": '["a", "\\x41"]', "raw-tab": '["a\tb", "c"]', "text": '"a text"',
        "number": "17", "null": "null", "true": "true", "word": "hello there", "plus": '["a", +1]', "zero": '["a", 01]',
        "undefined": '["a", undefined]', "empty-list": "[]", "empty-object": "{}", "list-of-lists": "[[]]",
        "xml": "<a>b</a>", "list-of-nulls": "[null, null]", "numbers": "[1, 2, 3]", "half-open-text": '["a", "b',
    }  # fmt: skip
    for name, line in broken.items():
        # "two-values" and the like cost their line only.
        yield Bad(f"{name}.jsonl", lines(GOOD, line, GOOD), 2, "lines")
        yield Bad(f"only-{name}.json", line.encode())
    yield Bad(
        "duplicate-keys.jsonl",
        lines('{"prompt": "a", "prompt": "b", "completion": "c", "completion": "d"}'),
        1,
        "lines",
    )
    yield Bad(
        "duplicate-keys-of-two-types.jsonl",
        lines(GOOD, '{"messages": "a", "messages": [["b"]], "turns": 3}'),
        1,
        "lines",
    )
    yield Bad(
        "two-objects.json", b'{\n "prompt": "a",\n "completion": "b"\n}\n{\n "prompt": "c",\n "completion": "d"\n}\n'
    )
    yield Bad("comma-at-the-end.json", b'[\n ["a", "b"],\n ["c", "d"],\n]\n')
    yield Bad("comments.json", b'[\n // the first\n ["a", "b"]\n]\n')
    yield Bad("nan.json", b'[\n {"prompt": "a", "completion": NaN}\n]\n')
    yield Bad(
        "some-items.json", json.dumps([["a", "b"], 7, None, "x", {}, [], ["c"], ["d", "e"]], indent=1).encode(), 2, 8
    )
    yield Bad("lines-between-brackets.json", b'[\n["a", "b"]\n["c", "d"]\n]\n')
    yield Bad("keys-of-other-languages.jsonl", jsonl({"ключ": "a", "значение": "b"}, {"😀": "c", "": "d"}))
    yield Bad("keys-that-python-knows.jsonl", jsonl({"__class__": "a", "__init__": "b", "self": "c"}))
    yield Bad("wrong-roles.jsonl", jsonl(*(
        {"messages": [{"role": role, "content": "a"}, {"role": "assistant", "content": "b"}]}
        for role in ("moderator", "", " ", "USER ", "tool", "\u0000", "a" * 5_000, "assistant", "user")
    )), 3, "lines")  # fmt: skip
    yield Bad("only-questions.jsonl", jsonl(*[{"messages": [{"role": "user", "content": "a"}]}] * 3), 0, "lines")
    yield Bad("only-system.jsonl", jsonl(*[{"messages": [{"role": "system", "content": "a"}]}] * 3), 0, "lines")
    yield Bad("nested-lists.jsonl", jsonl([[["a", "b"]]], [["a", "b"], ["c", "d"]], ["e", "f"]), 3, "lines")
    yield Bad("blank-lines.jsonl", b"\n\n" + JSONL + b"\n   \n\t\n" + JSONL, 6, "lines")
    yield Bad("a-pointer.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
