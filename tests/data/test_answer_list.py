"""The list of answers: which reply a question asks for, and when that is sure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chat_app.conversation import Conversation
from chat_app.data import answer_list
from chat_app.data.answer_list import AnswerList, find_exchanges
from chat_app.data.everyday_words import find_groups, stem
from chat_app.data.readers import iterate_conversations
from chat_app.errors import DataError

SETS = Path(__file__).parents[2] / "benchmarks" / "learning_sets"
SHOP = [
    ("When do you open?", "We open at nine."),
    ("What are your opening hours?", "We open at nine."),
    ("How much is a puncture repair?", "A puncture repair is twelve pounds."),
    ("Can you mend a flat tyre?", "A puncture repair is twelve pounds."),
    ("Do you sell helmets?", "Helmets are on the wall by the door."),
    ("Can I bring it back?", "Bring it back within a month."),
    ("Where are you?", "We are in Mill Lane."),
]


@pytest.fixture(scope="module")
def shop() -> AnswerList:
    return AnswerList(SHOP)


@pytest.mark.parametrize(("question", "reply"), SHOP)
def test_a_taught_question_is_sure_whatever_its_capitals(shop: AnswerList, question: str, reply: str) -> None:
    found = shop.find_sure(question.upper().rstrip("?"))
    assert found is not None
    assert found.reply == reply


def test_another_word_for_the_same_finds_the_reply(shop: AnswerList) -> None:
    found = shop.rank("what is the price for fixing an inner tube")[0]
    assert found.reply == "A puncture repair is twelve pounds."
    assert found.question in [question for question, _ in SHOP]


@pytest.mark.parametrize("question", ["What is the capital of Mongolia?", "Tell me a joke about elephants", "???", ""])
def test_a_question_about_something_else_is_not_sure(shop: AnswerList, question: str) -> None:
    assert shop.find_sure(question) is None


def test_two_replies_that_fit_equally_are_not_sure() -> None:
    answers = AnswerList([("lost card", "Ask at the desk."), ("lost book", "Pay for it."), ("hello", "Good day.")])
    assert answers.find_sure("I have lost") is None


def test_every_turn_of_a_conversation_is_in_the_list() -> None:
    conversation = Conversation.from_turns(["Hi", "Hello.", "Where are you?", "In Mill Lane."])
    assert find_exchanges(conversation) == [("Hi", "Hello."), ("Where are you?", "In Mill Lane.")]
    assert AnswerList.of([conversation]).replies == ["Hello.", "In Mill Lane."]


def test_a_list_without_a_reply_or_with_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no questions"):
        AnswerList([("Hi", " ")])
    monkeypatch.setattr(answer_list, "MOST_REPLIES", 3)
    with pytest.raises(DataError, match="too many"):
        AnswerList([(f"question {number}", f"reply {number}") for number in range(5)])


@pytest.mark.parametrize(
    "words", ["close closed closing closes", "stop stopped stopping stops", "fee fees", "city cities"]
)
def test_forms_of_a_word_have_one_stem(words: str) -> None:
    assert len({stem(word) for word in words.split()}) == 1


def test_words_of_the_same_meaning_share_a_group() -> None:
    for first, second in (("price", "fee"), ("shut", "closed"), ("puncture", "flat"), ("parking", "cars")):
        assert set(find_groups(stem(first))) & set(find_groups(stem(second))), (first, second)


@pytest.mark.parametrize(("name", "first", "other"), [("library", 20, 2), ("clinic", 17, 2), ("bicycle_shop", 20, 2)])
def test_what_it_reaches_on_the_learning_sets(name: str, first: int, other: int) -> None:
    """The questions share at most 45 % of their words with a taught one; most need knowledge that no list has."""
    answers = AnswerList.of(iterate_conversations(SETS / f"{name}.jsonl"))
    asked = [json.loads(line) for line in (SETS / f"{name}_questions.jsonl").read_text("utf-8").splitlines()]
    strange = [json.loads(line)["question"] for line in (SETS / f"{name}_other.jsonl").read_text("utf-8").splitlines()]
    assert sum(answers.rank(row["question"], 1)[0].reply == row["reply"] for row in asked) >= first
    assert sum(answers.find_sure(question) is not None for question in strange) <= other
    quoted = [(found.reply, row["reply"]) for row in asked if (found := answers.find_sure(row["question"]))]
    wrong = sum(reply != right for reply, right in quoted)
    assert wrong < len(quoted) / 2
