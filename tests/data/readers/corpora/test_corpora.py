"""The four corpora of the seed systems, in their original files and as rows of the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from chat_app.conversation import Conversation
from chat_app.data.readers.corpora import dailydialog, empathetic_dialogues
from chat_app.data.readers.detect import open_reader
from chat_app.data.readers.json import document, jsonl, streaming
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.split_names import parse_part, part_from_filename
from chat_app.data.readers.text_source import Source, open_source
from chat_app.data.readers.types import Located, Problem

OPTIONS = ReadingOptions()


def stored(tmp_path: Path, content: str | bytes, name: str) -> Source:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_source(path)


def kind_of(source: Source) -> str:
    return open_reader(InputFile(source.path, source.name, OPTIONS)).preview().kind


def said(found: Conversation) -> list[str]:
    return [f"{message.role[0]}:{message.text}" for message in found.messages]


def short(items: Iterable[Located | Problem]) -> list[Any]:
    return [
        (item.line, said(item.conversation)) if isinstance(item, Located) else (item.line, item.reason)
        for item in items
    ]


def lines_of(*values: Any) -> list[tuple[int, bytes | None]]:
    return [(number, json.dumps(value).encode()) for number, value in enumerate(values, start=1)]


def rows_of_jsonl(*values: Any, **options: Any) -> list[Any]:
    return short(jsonl.read_conversations(lines_of(*values), "a.jsonl", options=ReadingOptions(**options)))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("dialogues_train.txt", "train"), ("dialogues_validation.txt", "valid"), ("dialogues_test.txt", "test"),
        ("valid.csv", "valid"), ("dialogues_text.txt", "train"), ("archive.zip/test/dialogues_test.txt", "test"),
        ("latest.txt", "train"), ("my.dev.json", "valid"),
    ],
)  # fmt: skip
def test_a_file_says_its_part_by_its_name(name: str, part: str) -> None:
    assert part_from_filename(name) == part


def test_names_of_parts() -> None:
    assert [parse_part(name) for name in ("validation", "test_sft", "Dev", "all")] == ["valid", "test", "valid", None]


# DailyDialog


DAILY = (
    "Say , Jim , how about going for a few beers after dinner ? __eou__ You know that is tempting . __eou__ "
    "I don ’ t think so . __eou__\n"
    "Hello . __eou__\n"
    "\n"
    "Hi . __eou__  __eou__ Bye . __eou__\n"
    "Hi . __eou__ caf\u00e9 ? __eou__\n"
)


def test_dailydialog_from_its_own_file(tmp_path: Path) -> None:
    source = stored(tmp_path, DAILY, "dialogues_validation.txt")
    assert kind_of(source) == "dailydialog"
    found = list(dailydialog.read_conversations(source, OPTIONS))
    assert short(found) == [
        (
            1,
            [
                "u:Say, Jim, how about going for a few beers after dinner?",
                "a:You know that is tempting.",
                "u:I don't think so.",
            ],
        ),
        (2, "The conversation has 1 turn; it needs at least two turns."),
        (4, "Turn 2 is empty."),
        (5, ["u:Hi.", "a:Café?"]),
    ]
    assert {(item.file, getattr(item, "part", "valid")) for item in found} == {("dialogues_validation.txt", "valid")}


def test_dailydialog_as_the_original_repairs_it_and_as_it_stands(tmp_path: Path) -> None:
    source = stored(tmp_path, "say , jim , how __eou__ well __eou__\n" * 2, "dialogues_text.txt")
    legacy = list(dailydialog.read_conversations(source, ReadingOptions(tidy="legacy")))
    assert short(legacy)[0] == (1, ["u:Say, Jim, How.", "a:Well."])
    off = list(dailydialog.read_conversations(source, ReadingOptions(tidy="off")))
    assert short(off)[0] == (1, ["u:say , jim , how", "a:well"])


def test_dailydialog_as_rows() -> None:
    row = {"dialog": ["Hi , Jim .", "Hello ."], "act": [1, 1], "emotion": [0, 0]}
    assert rows_of_jsonl(row) == [(1, ["u:Hi, Jim.", "a:Hello."])]
    assert rows_of_jsonl(row, tidy="off") == [(1, ["u:Hi , Jim .", "a:Hello ."])]
    untokenised = {**row, "dialog": ["hi", "hello"]}
    assert rows_of_jsonl(row, untokenised, {"dialog": 3, "act": []}) == [
        (1, ["u:Hi, Jim.", "a:Hello."]),
        (2, ["u:hi", "a:hello"]),
        (3, '"dialog" is a number, not a list of turns.'),
    ]


# EmpatheticDialogues


HEADER = "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags\n"
EMPATHETIC = (
    HEADER
    + "hit:0_conv:1,1,sad,I fell,1,I fell_comma_ and it hurt.,5|5|5_2|2|5,\n"
    + "hit:0_conv:1,2,sad,I fell,0,Oh no!,5|5|5_2|2|5,\n"
    + 'hit:0_conv:1,3,sad,I fell,0,Is it "bad" now?,5|5|5_2|2|5,\n'
    + "hit:0_conv:1,4,sad,I fell,1,A little,5|5|5_2|2|5,\n"
    + "hit:1_conv:2,1,joyful,I won,12,I won!,5|5|5_2|2|5,<HI>\n"
    + 'hit:2_conv:4,1,joyful,I won,7,"I ""won"", yes",5|5|5_2|2|5,\n'
    + "hit:2_conv:4,2,joyful,I won,9,Great,5|5|5_2|2|5\n"
    + "too,many,columns,here,1,a,b,c,d,e\n"
    + "hit:3_conv:5,1,joyful,I won,7,I won,,\n"
    + "hit:3_conv:5,2,joyful,I won,9, ,,\n"
)


def test_empathetic_dialogues_from_their_own_file(tmp_path: Path) -> None:
    source = stored(tmp_path, EMPATHETIC, "test.csv")
    assert kind_of(source) == "empathetic"
    found = list(empathetic_dialogues.read_conversations(source, OPTIONS))
    conversations = [item for item in found if isinstance(item, Located)]
    assert short(conversations) == [
        (2, ["u:I fell, and it hurt.", 'a:Oh no! Is it "bad" now?', "u:A little"]),
        (7, ['u:I "won", yes', "a:Great"]),
    ]
    assert {item.part for item in conversations} == {"test"}
    problems = [(item.line, item.reason) for item in found if isinstance(item, Problem)]
    assert sorted(problems) == [
        (6, "Nobody answers in the conversation hit:1_conv:2."),
        (9, "This row has 10 columns; 8 are named in the first line."),
        (10, "The utterance in line 11 is empty."),
    ]


def test_one_open_quote_swallows_nothing(tmp_path: Path) -> None:
    text = HEADER + 'c1,1,sad,p,1,"Hello there,5,\nc1,2,sad,p,2,Hi,5,\nc2,1,sad,p,1,Bye,5,\nc2,2,sad,p,2,See you,5,\n'
    assert short(empathetic_dialogues.read_conversations(stored(tmp_path, text, "train.csv"), OPTIONS)) == [
        (2, ['u:"Hello there', "a:Hi"]),
        (4, ["u:Bye", "a:See you"]),
    ]


def test_rows_that_were_shuffled_come_together_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def row(conv: str, index: int, text: str) -> dict[str, Any]:
        return {"conv_id": conv, "utterance_idx": index, "speaker_idx": index % 2, "utterance": text}

    rows = [row("a", 2, "Hello"), row("b", 1, "Bye"), row("a", 1, "Hi"), row("b", 2, "See you")]
    together = [(1, ["u:Hi", "a:Hello"]), (2, ["u:Bye", "a:See you"])]
    assert [item[1] for item in rows_of_jsonl(*rows)] == [item[1] for item in together]
    monkeypatch.setattr(empathetic_dialogues, "HELD_ROWS", 3)
    assert len(rows_of_jsonl(*rows)) == 2


def test_broken_rows_of_empathetic_dialogues_are_problems() -> None:
    good = [
        {"conv_id": "a", "utterance_idx": 1, "speaker_idx": 0, "utterance": "Hi"},
        {"conv_id": "a", "utterance_idx": 2, "speaker_idx": 1, "utterance": "Hello"},
    ]
    bad = {"conv_id": "b", "utterance_idx": "x", "speaker_idx": 1, "utterance": 3}
    found = rows_of_jsonl(*good, bad, 7)
    assert (1, ["u:Hi", "a:Hello"]) in found
    assert (3, "The utterance in line 3 is a number, not text.") in found
    assert (4, "Here is a number instead of a row with named fields.") in found


# Persona-Chat


def persona(*turns: str, personality: Any = ("i like tea .", "i am old .")) -> dict[str, Any]:
    """A conversation as the original has it; the turns are those of both, the last one the gold reply."""
    utterances = [
        {"candidates": ["wrong .", "also wrong .", turns[end]], "history": list(turns[:end])}
        for end in range(1, len(turns), 2)
    ]
    return {"personality": list(personality), "utterances": utterances}


SYSTEM = "s:I like tea.\nI am old."
PERSONACHAT = {
    "train": [
        persona("hi , how are you ?", "i ' m fine . you ?", "good .", "bye !"),
        persona("__ SILENCE __", "hello .", "hi .", "how are you ?"),
        {"personality": [], "utterances": []},
        {"personality": 3, "utterances": [{"candidates": ["b"], "history": ["a"]}]},
        {"personality": None, "utterances": [{"candidates": [], "history": ["a"]}]},
    ],
    "valid": [persona("hi .", "bye .")],
}
EXPECTED = [
    (1, [SYSTEM, "u:Hi, how are you?", "a:I'm fine. You?", "u:Good.", "a:Bye!"]),
    (2, [SYSTEM, "a:Hello.", "u:Hi.", "a:How are you?"]),
    (3, "In item 3: The conversation has no utterances."),
    (4, "In item 4: The personality is a number, not text."),
    (5, "In item 5: The last utterance has no candidates, so its reply is missing."),
    (1, [SYSTEM, "u:Hi.", "a:Bye."]),
]


@pytest.mark.parametrize("indent", [None, 1])
def test_personachat_from_its_own_file(tmp_path: Path, indent: int | None) -> None:
    source = stored(tmp_path, json.dumps(PERSONACHAT, indent=indent), "personachat_self_original.json")
    assert streaming.is_personachat(source)
    found = list(document.read_conversations(source, OPTIONS))
    assert short(found) == EXPECTED
    assert [item.part for item in found if isinstance(item, Located)] == ["train", "train", "valid"]
    assert short(document.read_value(PERSONACHAT, "a.json", OPTIONS)) == EXPECTED


def test_personachat_as_rows() -> None:
    assert rows_of_jsonl(*PERSONACHAT["train"][:2]) == EXPECTED[:2]
    utterances = [
        {
            "personality": ["i ski ."],
            "history": ["hi .", "hello .", "ok ."][:end],
            "candidates": ["no .", gold],
            "conv_id": conv,
        }
        for conv, end, gold in ((0, 1, "hello ."), (0, 3, "bye ."), (1, 1, "hey ."))
    ]
    expected = [
        (1, ["s:I ski.", "u:Hi.", "a:Hello.", "u:Ok.", "a:Bye."]),
        (3, ["s:I ski.", "u:Hi.", "a:Hey."]),
    ]
    assert rows_of_jsonl(*utterances) == expected
    without_number = [{key: value for key, value in row.items() if key != "conv_id"} for row in utterances]
    assert rows_of_jsonl(*without_number) == expected


# BlendedSkillTalk


def test_blended_skill_talk_as_rows() -> None:
    row = {
        "personas": ["i am bob.", "i sing."],
        "context": "convai2",
        "additional_context": "",
        "previous_utterance": ["i love wine !", "Me too."],
        "free_messages": ["Which one?", "Nice.", "Bye"],
        "guided_messages": ["Red.", "", ""],
        "suggestions": {},
    }
    expected = ["s:i am bob.\ni sing.", "u:I love wine!", "a:Me too.", "u:Which one?", "a:Red.", "u:Nice.\nBye"]
    assert rows_of_jsonl(row) == [(1, expected)]
    bad = {**row, "free_messages": 3}
    assert rows_of_jsonl(row, bad)[1] == (2, '"free_messages" is a number, not a list of texts.')
    alone = {**row, "previous_utterance": [], "free_messages": ["a"], "guided_messages": []}
    assert rows_of_jsonl(alone) == [(1, "Nobody answers in this conversation.")]


def test_blended_skill_talk_from_its_own_file(tmp_path: Path) -> None:
    item = {
        "personas": [["i am ann."], ["i am bob.", "i sing."]],
        "context_dataset": "empathetic_dialogues",
        "free_turker_utterance": "I fell.",
        "guided_turker_utterance": "Oh no.",
        "additional_context": "sad",
        "dialog": [[0, "Yes."], [1, "Poor you."], [0, "Thanks."], [1, "Bye."]],
    }
    source = stored(tmp_path, json.dumps([item, {**item, "dialog": [[2, "x"]]}], indent=1), "train.json")
    assert short(document.read_conversations(source, OPTIONS)) == [
        (
            1,
            ["s:i am bob.\ni sing.", "u:I fell.", "a:Oh no.", "u:Yes.", "a:Poor you.", "u:Thanks.", "a:Bye."],
        ),
        (2, "In item 2: Turn 1 is not a pair of a speaker, 0 or 1, and a text."),
    ]


@pytest.mark.parametrize("text", ["a\tb\n", '["a __eou__ b"]\n', "a,b\n1,2\n", "hello\n"])
def test_other_files_are_no_corpus(tmp_path: Path, text: str) -> None:
    assert kind_of(stored(tmp_path, text, "train.csv")) not in ("dailydialog", "empathetic")
