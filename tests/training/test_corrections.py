"""Teaching by correcting: the set keeps what was corrected, and the mixture teaches it without forgetting the rest."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_app.config.fields import from_mapping
from chat_app.config.paths import Paths
from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation, Message
from chat_app.data.paraphrase import find_keywords, normalize, paraphrase, reduce_to_keywords
from chat_app.data.readers import iterate, iterate_conversations
from chat_app.data.writers import write_jsonl
from chat_app.errors import DataError
from chat_app.training import corrections_store as module
from chat_app.training.corrections_store import TEACHING_SETTINGS, Correction, Corrections, mix_conversations

ASKED = Conversation.from_turns(["Hello", "Hi!", "When do you open?"], system="You are a shop.")


def ask(text: str) -> Conversation:
    return Conversation.from_turns([text])


def correction(prompt: str, good: str) -> Correction:
    return Correction(ask(prompt), "Hm.", good)


@pytest.fixture
def kept(tmp_path: Path) -> Corrections:
    return Corrections(tmp_path / "corrections")


def test_a_correction_comes_back_as_it_was(kept: Corrections) -> None:
    assert kept.list() == []
    added = kept.add(ASKED, "I open boxes.", "  At nine.  ")
    assert (added.conversation, added.bad, added.good) == (ASKED, "I open boxes.", "At nine.")
    assert added.time > 0
    assert Corrections(kept.folder).list() == [added]


def test_they_can_be_changed_and_removed(kept: Corrections) -> None:
    first, second, third = (kept.add(ask(f"question {n}"), "x", f"answer {n}") for n in range(3))
    changed = kept.change(second.id, "another answer")
    assert (changed.id, changed.good, changed.bad) == (second.id, "another answer", "x")
    kept.remove(first.id)
    assert kept.list() == [changed, third]
    kept.remove(second.id, third.id)
    assert kept.list() == []
    for act in (lambda: kept.remove(first.id), lambda: kept.change(first.id, "y")):
        with pytest.raises(DataError, match="no longer there"):
            act()


def test_the_same_reply_corrected_again_replaces_the_first_correction(kept: Corrections) -> None:
    kept.add(ASKED, "x", "At nine.")
    other = kept.add(ask("When do you open?"), "x", "At ten.")
    again = kept.add(ASKED, "x", "At eight.")
    assert kept.list() == [other, again]


def test_a_torn_line_loses_nothing_else(kept: Corrections) -> None:
    first = kept.add(ask("one"), "x", "1")
    with open(kept.folder / "corrections.jsonl", "a") as file:
        file.write('{"id": "torn", "messa')
    second = kept.add(ask("two"), "x", "2")
    assert kept.list() == [first, second]


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "null",
        '{"id": 1}',
        '{"id":"a","time":"x","messages":[],"bad":"","good":"y"}',
        '{"id":"a","time":1,"messages":[{"role":"assistant","content":"x"}],"bad":"","good":"y"}',
        '{"id":"a","time":1,"messages":[{"role":"robot","content":"x"}],"bad":"","good":"y"}',
        '{"id":"a","time":1,"messages":[{"role":"user","content":5}],"bad":"","good":"y"}',
        '{"id":"a","time":1,"messages":[{"role":"user","content":"x"}],"bad":"","good":" "}',
    ],
)
def test_damaged_lines_are_read_past(kept: Corrections, line: str) -> None:
    good = kept.add(ask("one"), "x", "1")
    with open(kept.folder / "corrections.jsonl", "a") as file:
        file.write(line + "\n")
    assert kept.list() == [good]


def test_every_text_can_be_kept(kept: Corrections) -> None:
    odd = kept.add(ask('quotes " and\nlines \u2028 and 🙂'), "bad\x00", "good\ttab")
    assert kept.list() == [odd]
    kept.add(ask("half \ud83d of a pair"), "", "fine")
    assert len(kept.list()) == 2


def test_several_at_once_lose_nothing(kept: Corrections) -> None:
    threads = [
        threading.Thread(target=lambda n=n: [kept.add(ask(f"{n} {m}"), "", "x") for m in range(5)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.prompt for one in kept.list()}) == 20


def test_what_cannot_be_taught_is_refused(kept: Corrections, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="said before the reply"):
        kept.add(Conversation.from_turns(["Hello", "Hi!"]), "", "x")
    with pytest.raises(DataError, match="empty"):
        kept.add(ASKED, "x", "  ")
    with pytest.raises(DataError, match="8,001 characters"):
        kept.add(ASKED, "x", "y" * 8_001)
    with pytest.raises(DataError, match="too long to be taught"):
        kept.add(ask("y" * 70_000), "x", "y")
    monkeypatch.setattr(module, "MOST", 2)
    kept.add(ask("1"), "", "x")
    kept.add(ask("2"), "", "x")
    with pytest.raises(DataError, match="2 corrections already"):
        kept.add(ask("3"), "", "x")
    assert kept.add(ask("2"), "", "z").good == "z"


TAUGHT = [
    correction("When do you open?", "At nine."),
    correction("Where is your shop?", "In the old town."),
    Correction(ASKED, "Hm.", "At nine, dear guest."),
]
EARLIER = [Conversation.from_turns([f"earlier {n}", f"reply {n}"]) for n in range(500)]


def test_each_correction_is_there_as_often_as_asked_and_once_as_it_is() -> None:
    rows = list(mix_conversations(TAUGHT, EARLIER, repeat=10, share=0.4, seed=1))
    replies = Counter(row.texts[-1] for row in rows)
    assert [replies[one.good] for one in TAUGHT] == [10, 10, 10]
    assert sum(count for reply, count in replies.items() if reply.startswith("reply")) == 20
    for one in TAUGHT:
        assert any(row.texts[:-1] == one.conversation.texts and row.texts[-1] == one.good for row in rows)


def test_only_the_good_reply_is_learned() -> None:
    rows = [row for row in mix_conversations(TAUGHT, [], repeat=4) if row.texts[-1] == "At nine, dear guest."]
    for row in rows:
        assert row.system == "You are a shop."
        assert row.texts[:2] == ["Hello", "Hi!"]
        assert [turn.in_loss for turn in row.turns] == [False, False, False, True]


def test_what_is_learned_survives_the_file(tmp_path: Path) -> None:
    rows = list(mix_conversations(TAUGHT, EARLIER, repeat=4, share=0.5))
    write_jsonl(rows, tmp_path / "train.jsonl")
    back: list[Any] = list(iterate(tmp_path / "train.jsonl"))
    assert [item.conversation for item in back] == rows


def test_the_same_seed_gives_the_same_rows_and_another_others() -> None:
    def rows(seed: int) -> list[Conversation]:
        return list(mix_conversations(TAUGHT, iter(EARLIER), repeat=6, share=0.5, seed=seed))

    assert rows(1) == rows(1)
    assert rows(1) != rows(2)
    assert {row.texts[0] for row in rows(1) if row in EARLIER} != {row.texts[0] for row in rows(2) if row in EARLIER}


def test_earlier_conversations_are_drawn_from_the_whole_stream() -> None:
    drawn = [row for row in mix_conversations(TAUGHT, iter(EARLIER), repeat=20, share=0.5) if row in EARLIER]
    numbers = sorted(int(row.texts[0].split()[1]) for row in drawn)
    assert len(numbers) == len(set(numbers)) == 60
    assert numbers[0] < 60
    assert numbers[-1] > 440


def test_fewer_earlier_ones_than_wanted_are_all_taken() -> None:
    assert sum(row in EARLIER for row in mix_conversations(TAUGHT, EARLIER[:7], repeat=20, share=0.5)) == 7


def test_earlier_answers_to_what_was_corrected_are_left_out() -> None:
    old = [
        Conversation.from_turns(["Hi", "Hello", "when do you OPEN", "Never."]),
        Conversation.from_turns(["Hi", "Yo"]),
    ]
    assert [row for row in mix_conversations(TAUGHT, old, repeat=2) if row in old] == old[1:]


def test_of_a_long_earlier_conversation_a_few_turns_are_taken() -> None:
    long = Conversation.from_turns([f"turn {n}" for n in range(21)], system="Be kind.")
    starts = set()
    for seed in range(40):
        rows = [row for row in mix_conversations(TAUGHT, [long], repeat=2, seed=seed) if row.system == "Be kind."]
        assert len(rows) == 1
        start = int(rows[0].texts[0].split()[1])
        assert rows[0] == long.slice_turns(start, start + 4)
        assert rows[0].turns[0].role == "user"
        starts.add(start)
    assert {0, 16} <= starts


def test_without_corrections_there_is_nothing_to_teach() -> None:
    with pytest.raises(DataError, match="no corrections"):
        list(mix_conversations([], EARLIER))


def test_no_wording_is_what_another_correction_asks() -> None:
    rival = [
        correction("What is your name?", "Pip."),
        correction("What's your name", "Ann."),
        correction("Name?", "Bo."),
    ]
    for row in mix_conversations(rival, [], repeat=60):
        owners = {one.good for one in rival if normalize(one.prompt) == normalize(row.texts[0])}
        assert owners <= {row.texts[1]}


def test_the_settings_are_settings_of_a_training() -> None:
    config = from_mapping(TrainConfig, TEACHING_SETTINGS)
    assert config.valid_share == 0.0


def test_a_question_is_put_in_many_ways_that_ask_the_same() -> None:
    chance = random.Random(0)
    made = {paraphrase("What is your favorite color?", chance) for _ in range(200)}
    assert len(made) > 60
    assert "what's your favorite color?" in {one.lower() for one in made}
    assert all(one.count("?") <= 2 and "color" in one.lower() for one in made)


def test_a_denial_is_never_lost() -> None:
    chance = random.Random(0)
    for _ in range(200):
        said = paraphrase("I do not like the rain.", chance).lower()
        assert "not" in said or "don't" in said
        assert "?" not in said


def test_keywords_are_what_it_is_about() -> None:
    assert find_keywords("What is your favorite color?") == ["favorite", "color"]
    assert find_keywords("Who are you?") == []


def test_keywords_that_fit_another_correction_are_not_used() -> None:
    chance = random.Random(0)
    others = [frozenset(find_keywords("Is there parking for a bicycle?"))]
    made = {reduce_to_keywords("Do you repair a bicycle?", others, chance) for _ in range(100)}
    assert all("repair" in one.lower() for one in made)
    assert any("repair" in one and "bicycle" not in one for one in made)


@given(st.text(max_size=60), st.integers(0, 50))
def test_any_text_can_be_reworded(text: str, seed: int) -> None:
    chance = random.Random(seed)
    for prompt in (paraphrase(text, chance), reduce_to_keywords(text, [], chance)):
        assert Message("user", prompt).text == prompt
        assert len(prompt) <= 4 * len(text) + 80
        if text.strip():
            assert prompt.strip()


# What is asked, what is taught, and the same in other words, which are not learned.
TWELVE = [
    ("When do you open?", "We open at nine in the morning.", "What are your opening hours?"),
    ("Where is your shop?", "Our shop is at 12 Harbour Street.", "How do I find your store?"),
    ("How much is delivery?", "Delivery costs four pounds.", "What do I pay for shipping?"),
    ("Can I return a lamp?", "Yes, within thirty days with the receipt.", "What if I want to give a lamp back?"),
    ("Do you repair bicycles?", "Yes, our workshop repairs every bicycle.", "My bicycle is broken, could you fix it?"),
    ("Do you sell gift cards?", "Yes, gift cards start at ten pounds.", "I would like to buy a gift card."),
    ("How can I pay?", "You can pay in cash or by card.", "Which payment methods do you accept?"),
    ("Is there parking nearby?", "There is free parking behind the building.", "Where can I leave my car?"),
    ("Are dogs allowed?", "Dogs are welcome on a leash.", "May I bring my dog?"),
    ("Who is the manager?", "Our manager is Mrs. Okafor.", "I want to speak to the manager."),
    (
        "Do you have a newsletter?",
        "You can join our newsletter at the counter.",
        "How do I sign up for the newsletter?",
    ),
    ("Do you offer a student discount?", "Students get ten percent off.", "Is it cheaper for students?"),
]


@pytest.mark.long
def test_twelve_corrections_are_answered_as_taught_and_the_rest_is_kept(tmp_path: Path) -> None:
    """The starter, taught by the command with TEACHING_SETTINGS: 11 of 12 as taught, 6 in other words too, and at most
    3 % more bits a byte on conversations that it never saw."""
    from assets.starter_data import chitchat, is_held_out

    taught = [correction(question, good) for question, good, _ in TWELVE]
    rows = list(mix_conversations(taught, iterate_conversations(Paths.default().assets / "starter_earlier.jsonl")))
    assert not {normalize(row.turns[-2].text) for row in rows if len(row.turns) > 1} & {
        normalize(other) for *_, other in TWELVE
    }
    write_jsonl(rows, tmp_path / "rows.jsonl")
    settings = {**TEACHING_SETTINGS, "precision": "float32", "device": "cpu", "threads": 2}
    flags = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = ["train", "--data", str(tmp_path / "rows.jsonl"), "--run", str(tmp_path / "run"), *flags]
    subprocess.run([sys.executable, "-m", "chat_app", *command], check=True, cwd=Path(__file__).resolve().parents[2])
    held_out = [Conversation.from_turns(one["turns"]) for key, one in chitchat() if is_held_out(key)][::12]
    before, _ = measured("starter", [], held_out)
    after, said = measured(
        str(tmp_path / "run" / "model"), [one for row in TWELVE for one in (row[0], row[2])], held_out
    )
    assert sum(said[question] == good for question, good, _ in TWELVE) >= 11
    assert sum(said[other] == good for _, good, other in TWELVE) >= 6
    assert after <= 1.03 * before


def measured(name: str, questions: list[str], conversations: list[Conversation]) -> tuple[float, dict[str, str]]:
    """Bits a byte of a model on conversations, and what it most likely answers to questions."""
    from chat_app.config.loading import LoadConfig
    from chat_app.evaluation.evaluate import evaluate
    from chat_app.inference.generation import generate_greedily
    from chat_app.models.loading import load_parts
    from chat_app.tokenization.chat_formats import get_format
    from chat_app.tokenization.encoder import Encoder

    model, tokenizer, files, _ = load_parts(name, LoadConfig(precision="float32", device="cpu"), Paths.default())
    encoder = Encoder(tokenizer, get_format("roles"), files.window)
    said = {question: generate_greedily(model, encoder, ask(question), 64) for question in questions}
    return evaluate(model, encoder, conversations, "all", most_replies=0).bits_per_byte, said
