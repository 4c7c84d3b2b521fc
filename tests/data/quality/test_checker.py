"""What a check finds, what it leaves alone, and what each repair does."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_app.conversation import Conversation, Message
from chat_app.data.quality import REPAIRS, Check, Checker, Finding, apply_repairs
from chat_app.data.quality.duplicates import Fingerprints
from chat_app.data.quality.issue_types import KINDS
from chat_app.data.readers.types import Located, Part
from chat_app.errors import SettingError

LONG = "I went to the old market in the morning and bought apples pears bread and a very large cheese for dinner"


def located(*turns: str, line: int = 1, part: Part = "train", system: str | None = None) -> Located:
    return Located(Conversation.from_turns(turns, system=system), line, "data.tsv", part)


def check(items: Iterable[Located]) -> Check:
    checker = Checker()
    checker.add_all(items)
    return checker.summarize()


def found(name: str, *items: Located) -> Finding | None:
    return check(items).find(name)


def turns_of(items: Iterable[Located]) -> list[list[str]]:
    return [item.conversation.texts for item in items]


# Name of the finding, conversations that have it, the number of them, conversations that nearly have it.
CASES: list[tuple[str, list[Located], int, list[Located]]] = [
    ("duplicates", [located("Hi", "Hello"), located("Hi", "Hello")], 1, [located("Hi", "Hello"), located("Hi", "Bye")]),
    (
        "near_duplicates",
        [
            *(located("Hi!", "Hello."), located("hi", "hello"), located(LONG, "a"), located(LONG + " today", "a")),
            *(located("今天天气很好，我们一起去公园散步，然后回家吃晚饭" + end, "好的") for end in ("。", "吧。")),
        ],
        3,
        [located("What is 2 + 2?", "4"), located("What is 3 + 3?", "6"), located(LONG, "a"), located("I", LONG[:40])],
    ),
    (
        "empty_turns",
        [located("...", "What?"), located("Hi", "\u200b\u2063"), located("\u3164", "a")],
        3,
        [located("👍", "5"), located("é", "你"), located("?!a", "ok...")],
    ),
    (
        "one_sided",
        [located("Hello?"), located("a", "1", "a", "2", "A", "3")],
        2,
        [located("a", "b"), located("a", "1", "a", "2"), located("a", "1", "a", "2", "b", "3")],
    ),
    (
        "same_reply",
        [located(f"Question {n}", "I do not know." if n % 5 == 0 else f"Answer {n}") for n in range(50)],
        10,
        [located(f"Question {n}", "I do not know." if n % 20 == 0 else f"Answer {n}") for n in range(100)],
    ),
    (
        "quoted",
        [located(f'"Question {n}"', f"'Answer {n}'") for n in range(5)],
        10,
        [located(f'"Question {n}"', f"Answer {n}") for n in range(10)],
    ),
    (
        "loops",
        [
            located("Hi", "I am a cat, yes " * 4),
            located("Hi", "Well, no no no no no no no no"),
            located("Hi", "你好吗" * 20),
        ],
        3,
        [
            located("no " * 20, "Ha ha ha ha!"),
            located("Hi", "I am a cat, yes " * 3),
            located("Hi", "-" * 80),
            located("Hi", "the one and the two and the three and the four and the five and the six and the seven"),
        ],
    ),
    ("long_turns", [located("word " * 900, "Hm.")], 1, [located("word " * 800, "Hm.")]),
    (
        "special_tokens",
        [
            located("Hi<|End|>", "<s>Hello</s>"),
            located("[INST] Hi [/INST]", "<|im_start|>user"),
            located("### Human: hi", "x<sep>y <|endoftext|>"),
        ],
        9,
        [located("a < s > b, 3 <s", "[laughs] [1] ## Heading"), located("### Great", "Human: hi <|> <x>")],
    ),
    (
        "mojibake",
        [located("CafÃ©", "Itâ€™s fine"), located("РџСЂРёРІРµС‚", "Hi")],
        3,
        [located("Café – it’s “fine”…", "Привет, как дела?"), located("Ã la carte", "ÀÉ, naïve")],
    ),
    ("lost_characters", [located("Caf\ufffd", "Hi")], 1, [located("Café", "Hi")]),
    (
        "html",
        [located("Tom &amp; Jerry<br/>", "<p class='x'>Hi</p>"), located("&#39;x", "<!-- no --> y")],
        6,
        [located("Tom & Jerry; a<b", "x > y <3 <- &nosuchthing; <name>")],
    ),
    ("emails", [located("jo@example.org or al@example.org", "Hi")], 2, [located("jo at example.org", "Hi")]),
    ("phones", [located("Call 212-555-0123", "Hi")], 1, [located("In 2019-2020", "Hi")]),
    ("cards", [located("4111111111111111", "Hi")], 1, [located("4111111111111112", "Hi")]),
    ("bank_accounts", [located("GB29NWBK60161331926819", "Hi")], 1, [located("GB29NWBK60161331926818", "Hi")]),
    ("machine_addresses", [located("203.0.113.17", "Hi")], 1, [located("version 203.0.113.17", "Hi")]),
    ("identity_numbers", [located("SSN 536-90-4399", "Hi")], 1, [located("SSN 536-90-439", "Hi")]),
    ("birth_dates", [located("I was born on 3/4/1990", "Hi")], 1, [located("I was born in 1990", "Hi")]),
    ("streets", [located("221B Baker Street", "Hi")], 1, [located("2 shops in the High Street", "Hi")]),
    ("keys", [located("AKIA" + "IOSFODNN7EXAMPLE", "Hi")], 1, [located("AKIAIOSFODNN", "Hi")]),
    (
        "leakage",
        [located("a", "b"), located("a", "b", part="valid"), located("c", "d", part="test"), located("c", "d")],
        2,
        [located("a", "b"), located("a", "c", part="valid"), located("a", "b"), located("x", "y", part="test")],
    ),
    (
        "leaked_openings",
        [located("Hi", "Hello", "A", "B"), located("hi", "Hello", "C", "D", part="valid")],
        1,
        [located("Hi", "Hello", "A"), located("Hi", "Hey", "A", part="valid"), located("Hi", "Hello", "x")],
    ),
]  # fmt: skip
NAMES = [case[0] for case in CASES]


def test_every_kind_of_finding_has_a_case() -> None:
    assert sorted(NAMES) == sorted(KINDS)
    assert {kind.repair for kind in KINDS.values()} - {None} == set(REPAIRS)


@pytest.mark.parametrize(("name", "with_it", "count", "without_it"), CASES, ids=NAMES)
def test_what_is_there_is_found_and_what_only_looks_like_it_is_not(
    name: str, with_it: list[Located], count: int, without_it: list[Located]
) -> None:
    finding = found(name, *with_it)
    assert finding is not None
    assert finding.count == count
    assert 1 <= len(finding.spots) <= 5
    assert all(spot.file == "data.tsv" and spot.line == 1 and spot.quote for spot in finding.spots)
    assert finding.repair == (name if name in REPAIRS else None)
    assert found(name, *without_it) is None


@pytest.mark.parametrize(("name", "with_it"), [(case[0], case[1]) for case in CASES if case[0] in REPAIRS])
def test_after_a_repair_its_finding_is_gone(name: str, with_it: list[Located]) -> None:
    assert found(name, *apply_repairs(with_it, [name])) is None


@pytest.mark.parametrize(("name", "without_it"), [(case[0], case[3]) for case in CASES if case[0] in REPAIRS])
def test_a_repair_leaves_alone_what_has_nothing_to_repair(name: str, without_it: list[Located]) -> None:
    assert list(apply_repairs(without_it, [name])) == without_it


@pytest.mark.parametrize(
    ("repair", "before", "after"),
    [
        ("html", ["Tom &amp; Jerry<br>&lt;3", "<p>Hi</p>"], ["Tom & Jerry\n<3", "Hi"]),
        ("html", ["a &amp;amp;lt; b", "&amp;lt;b&amp;gt;bold"], ["a < b", "bold"]),
        ("html", ["<br>", "Hi", "<b>x</b>", "y"], None),
        ("special_tokens", ["Hi there<|im_end|><|im_start|>you", "<s> Hello </s>"], ["Hi there you", "Hello"]),
        ("special_tokens", ["### Human: hi", "[INST]x<<SYS>>"], ["hi", "x"]),
        ("mojibake", ["CafÃ© <br>", "Itâ€™s"], ["Café <br>", "It’s"]),
        ("emails", ["jo@example.org, 212-555-0123", "to jo@example.org"], ["[e-mail], 212-555-0123", "to [e-mail]"]),
        ("phones", ["jo@example.org, 212-555-0123", "ok"], ["jo@example.org, [phone]", "ok"]),
        ("empty_turns", ["Hi", "Hello", "..."], ["Hi", "Hello"]),
        ("empty_turns", ["Hi", "...", "What?", "Nothing."], None),
        ("empty_turns", ["Hi", "..."], None),
        ("one_sided", ["a", "1", "a", "2", "a", "3"], None),
    ],
)
def test_a_repair_does_exactly_what_it_says(repair: str, before: list[str], after: list[str] | None) -> None:
    assert turns_of(apply_repairs([located(*before)], [repair])) == ([] if after is None else [after])


def test_a_mended_conversation_keeps_its_place_its_roles_and_what_is_learned() -> None:
    messages = (Message("system", "Be <b>kind</b>."), Message("assistant", "Hi <i>you</i>", in_loss=False))
    item = Located(Conversation((*messages, Message("user", "Hey"))), 7, "a.jsonl", "test")
    (mended,) = apply_repairs([item], ["html"])
    assert mended.conversation.messages == (
        Message("system", "Be kind."),
        Message("assistant", "Hi you", in_loss=False),
        Message("user", "Hey"),
    )
    assert (mended.line, mended.file, mended.part) == (7, "a.jsonl", "test")


def test_the_first_of_copies_is_kept_and_parts_are_told_apart() -> None:
    items = [
        located("Hi", "Hello", line=1),
        located("hi!", "hello", line=2),
        located("Hi", "Hello", line=3),
        located("hi!", "hello", line=4),
        located("Hi", "Hello", line=5, part="valid"),
    ]
    assert [item.line for item in apply_repairs(items, ["duplicates"])] == [1, 2, 5]
    assert [item.line for item in apply_repairs(items, ["near_duplicates"])] == [1, 3, 5]
    assert [item.line for item in apply_repairs(items, ["duplicates", "near_duplicates"])] == [1, 5]


def test_what_is_kept_aside_leaves_training_also_from_an_iterator_that_runs_once() -> None:
    items = [
        located("Hi", "Hello", line=1),
        located("Hi", "Hello", "More", "Yes", line=2),
        located("x", "y", line=3),
        located("Hi", "Hello", line=4, part="valid"),
    ]
    for given_as in (items, iter(items)):
        assert [item.line for item in apply_repairs(given_as, ["leakage", "duplicates"])] == [2, 3, 4]
    assert [item.line for item in apply_repairs(iter(items), ["leaked_openings"])] == [3, 4]


def test_a_conversation_equal_after_another_repair_is_a_leak_too() -> None:
    items = [located("A &amp; B", "Hello", line=1), located("A & B", "Hello", line=2, part="test")]
    assert [item.line for item in apply_repairs(items, ["leakage", "html"])] == [2]


def test_an_unknown_repair_is_refused_at_once() -> None:
    with pytest.raises(SettingError, match="no repair 'polish'"):
        apply_repairs([], ["duplicates", "polish"])


def test_repairs_read_no_more_than_they_give() -> None:
    def endless() -> Iterator[Located]:
        number = 0
        while True:
            number += 1
            yield located(f"Hi {number}", "Hello")

    stream = apply_repairs(endless(), set(REPAIRS) - {"leakage", "leaked_openings"})
    assert [next(stream).conversation.texts[0] for _ in range(3)] == ["Hi 1", "Hi 2", "Hi 3"]


def test_counts_histograms_and_the_share_that_fits() -> None:
    calls: list[int] = []

    def count_tokens(texts: Sequence[str]) -> list[int]:
        calls.append(len(texts))
        return [len(text.split()) for text in texts]

    checker = Checker(count_tokens=count_tokens, window=12)
    checker.add_all(located("one two", "three", line=line) for line in range(1, 1501))
    checker.add(located("a " * 20, "b", "c", "d", part="valid", system="Be kind."))
    result = checker.summarize()
    assert (result.conversations, result.turns, result.tokens) == (1501, 3004, 4525)
    assert result.fitting == pytest.approx(1500 / 1501)
    assert result.parts == {"train": 1500, "valid": 1}
    assert (result.length_unit, calls) == ("tokens", [2000, 1005])
    turns = dict(zip(result.turns_histogram.edges, result.turns_histogram.counts, strict=True))
    assert {edge: count for edge, count in turns.items() if count} == {2: 1500, 4: 1}
    lengths = dict(zip(result.length_histogram.edges, result.length_histogram.counts, strict=True))
    assert {edge: count for edge, count in lengths.items() if count} == {0: 1500, 16: 1}
    assert found("long_turns", located("a" * 50, "b")) is None
    finding = result.find("duplicates")
    assert finding is not None
    assert (finding.count, [spot.line for spot in finding.spots]) == (1499, [2, 3, 4, 5, 6])


def test_without_anything_there_is_nothing_to_say() -> None:
    result = Checker(count_tokens=lambda texts: [1 for _ in texts], window=10).summarize()
    assert (result.conversations, result.tokens, result.fitting, result.languages) == (0, 0, None, ())
    assert result.findings == ()


def test_a_check_is_ready_for_json() -> None:
    shown = json.loads(json.dumps(check([located("jo@example.org", "Hi")]).to_dict()))
    assert shown["conversations"] == 1
    assert shown["tokens"] is None
    assert shown["findings"][0]["name"] == "emails"
    assert shown["findings"][0]["spots"] == [{"file": "data.tsv", "line": 1, "quote": "[e-mail]"}]


def test_languages_are_told_and_rare_or_short_ones_are_other() -> None:
    english = [located(f"Where did you go this morning, my friend {n}?", "I went to the market.") for n in range(90)]
    german = [located(f"Wohin bist du heute Morgen gegangen, Freund {n}?", "Ich war auf dem Markt.") for n in range(8)]
    result = check([*english, *german, located("ok", "ok"), located("Où es-tu allé ce matin, mon ami ?", "Au marché.")])
    assert result.languages == (("English", 0.9), ("German", 0.08), ("other", 0.02))


def test_a_finding_says_what_was_compared() -> None:
    checker = Checker(compared=2)
    checker.add_all(located(f"{LONG} {word} {word} {word}" * 2, word) for word in ("a", "b"))
    checker.add_all(
        [located("Hi", "Hello"), located("hi", "hello"), located(LONG[::-1], "c"), located(LONG[50:] * 2, "d")]
    )
    finding = checker.summarize().find("near_duplicates")
    assert finding is not None
    assert "first 2 different conversations" in finding.advice


def test_without_its_package_words_are_not_compared_and_the_finding_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    finding = found("near_duplicates", *CASES[NAMES.index("near_duplicates")][1])
    assert finding is not None
    assert finding.count == 1
    assert "rensa is not installed" in finding.advice


def test_fingerprints_are_a_set() -> None:
    numbers = [0, 1, 2**64 - 1, *range(5, 50_000, 7), 0, 1024, 2048]
    fingerprints, known = Fingerprints(), set()
    for number in numbers:
        assert fingerprints.add(number) == (number not in known)
        known.add(number)
    assert len(fingerprints) == len(known)
    assert all((number in fingerprints) == (number in known) for number in range(3000))


HOSTILE = [
    "<s" * 400 + ">" * 400, "&amp;" * 800 + "lt;", "[[INST]INST]" * 50, "a@" * 500, "1-" * 500, "+49 30 " * 100,
    "-----BEGIN PRIVATE KEY-----" * 40, "no " * 500, "ab" * 2000, "Ã" * 300, "Ã©â€" * 50, "<br " * 200, "\ud800", "\0",
    "jo@example.org<|End|>&lt;b&gt;", "&lt;s&gt;", "CafÃ© 4111111111111111", "sk-" + "a1" * 30 + "@example.org",
]  # fmt: skip
TEXTS = st.lists(
    st.sampled_from([*HOSTILE, *(text for case in CASES for item in case[1] for text in item.conversation.texts)])
    | st.text(max_size=12),
    min_size=1,
    max_size=3,
).map("".join)
ITEMS = st.lists(
    st.builds(
        lambda turns, part: located(*turns, part=part),
        st.lists(TEXTS, min_size=1, max_size=4),
        st.sampled_from(["train", "valid", "test"]),
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(ITEMS)
def test_any_text_can_be_checked_and_every_repair_removes_its_finding(items: list[Located]) -> None:
    before = check(items)
    json.dumps(before.to_dict())
    for name in REPAIRS:
        if before.find(name):
            assert found(name, *apply_repairs(items, [name])) is None
        elif name != "leaked_openings" or not before.find("leakage"):
            assert list(apply_repairs(items, [name])) == items
    assert len(list(apply_repairs(items, list(REPAIRS)))) <= len(items)
