"""Messages -> conversations: who is the bot, where a conversation ends, whose names are replaced."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chat_app.data.readers.chat_exports import threading
from chat_app.data.readers.chat_exports.threading import ChatMessage, Survey, guess_bot, read_conversations, survey
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.pseudonyms import Pseudonyms
from chat_app.data.readers.turn_text import MAX_TURNS
from chat_app.data.readers.types import Located, Problem, Speaker
from chat_app.errors import DataError


def chat(script: str, step: float = 60) -> list[ChatMessage | Problem]:
    """ "A hi|B hello||A bye": a minute between messages, a day where two bars stand."""
    found: list[ChatMessage | Problem] = []
    time = 0.0
    for number, entry in enumerate(script.split("|"), start=1):
        time += step if entry else 86_400
        if entry:
            author, _, text = entry.partition(" ")
            found.append(ChatMessage(time, author, text, number))
    return found


def speakers(messages: list[ChatMessage | Problem]) -> tuple[Speaker, ...]:
    return survey(messages, ReadingOptions()).speakers


def talks(
    messages: list[ChatMessage | Problem], bot: str = "B", options: ReadingOptions | None = None
) -> tuple[list[str], list[Problem]]:
    """Conversations as "u:hi a:hello", and the problems."""
    found = list(read_conversations(messages, "chat.txt", options or ReadingOptions(), bot, speakers(messages)))
    shown = [
        " ".join(f"{turn.role[0]}:{turn.text}" for turn in item.conversation.turns)
        for item in found
        if isinstance(item, Located)
    ]
    return shown, [item for item in found if isinstance(item, Problem)]


def test_the_bot_is_the_assistant_and_a_silence_ends_a_conversation() -> None:
    assert talks(chat("A hi|B hello|A how|B fine||A again|B yes")) == (
        ["u:hi a:hello u:how a:fine", "u:again a:yes"],
        [],
    )


def test_one_sides_messages_are_one_turn_without_names() -> None:
    assert talks(chat("A one|C two|B three|B four")) == (["u:one\ntwo a:three\nfour"], [])


def test_the_assistant_may_open_and_unanswered_ends_are_left_out() -> None:
    assert talks(chat("B hello|A hi|B how|A bye")) == (["a:hello u:hi a:how"], [])


def test_stretches_without_an_answer_are_counted_once() -> None:
    shown, problems = talks(chat("A hi||B hello|A hi||A one|B two||A on|C off"))
    assert shown == ["u:one a:two"]
    assert [problem.sentence() for problem in problems] == [
        "chat.txt: 3 stretches of talk hold no answer of B; they were passed over. "
        "If it should be used, choose another bot or a longer pause."
    ]
    assert talks(chat("A hi"))[1][0].reason == "1 stretch of talk holds no answer of B; it was passed over."


@pytest.mark.parametrize(("minutes", "count"), [(10, 1), (9, 2)])
def test_the_pause_is_in_minutes(minutes: float, count: int) -> None:
    messages = [
        ChatMessage(time, "AB"[number % 2], "x", number) for number, time in enumerate([0.0, 1.0, 601.0, 602.0])
    ]
    assert len(talks(list(messages), options=ReadingOptions(pause=minutes))[0]) == count


@pytest.mark.parametrize(("back", "count"), [(86_400, 1), (86_500, 2)])
def test_time_that_goes_back_by_more_than_a_day_ends_a_conversation(back: float, count: int) -> None:
    start = 10.0**6
    messages = [ChatMessage(start - back * (number > 1), "AB"[number % 2], "x", number) for number in range(4)]
    assert len(talks(list(messages))[0]) == count


def test_without_times_a_chat_is_one_conversation_and_chats_never_merge() -> None:
    messages = [ChatMessage(None, "AB"[number % 2], f"{number}", number, "12"[number > 3]) for number in range(8)]
    assert talks(list(messages))[0] == ["u:0 a:1 u:2 a:3", "u:4 a:5 u:6 a:7"]


def test_a_message_without_time_breaks_nothing() -> None:
    messages = [
        ChatMessage(time, "AB"[number % 2], "x", number) for number, time in enumerate([0.0, None, 60.0, 120.0])
    ]
    assert len(talks(list(messages))[0]) == 1
    messages = [ChatMessage(time, "AB"[number % 2], "x", number) for number, time in enumerate([0.0, None, 1e5, 1e5])]
    assert len(talks(list(messages))[0]) == 2


def test_a_conversation_of_too_many_turns_becomes_several() -> None:
    messages = [ChatMessage(None, "AB"[number % 2], f"{number}", number + 1) for number in range(2 * MAX_TURNS + 3)]
    found = list(read_conversations(messages, "f", ReadingOptions(), "B", ()))
    assert all(isinstance(item, Located) for item in found)
    located = [item for item in found if isinstance(item, Located)]
    assert [len(item.conversation.turns) for item in located] == [MAX_TURNS, MAX_TURNS, 2]
    assert [item.line for item in located] == [1, MAX_TURNS + 1, 2 * MAX_TURNS + 1]
    opened = list(read_conversations(messages[1:], "f", ReadingOptions(), "B", ()))
    turns = [turn.text for item in opened if isinstance(item, Located) for turn in item.conversation.turns]
    assert turns == [f"{number}" for number in range(1, 2 * MAX_TURNS + 2)]  # a question goes with its answer


def test_endless_talk_without_times_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "MAX_CHARACTERS", 20)
    shown, _ = talks([ChatMessage(None, author, "12345678", 1) for author in "AAAABBABABAB"])
    assert shown == ["u:12345678 a:12345678\n12345678", *["u:12345678 a:12345678"] * 3]


def test_a_talk_stands_in_the_file_of_its_first_message() -> None:
    messages = [ChatMessage(1, "A", "hi", 5, file="day1"), ChatMessage(2, "B", "yo", 1, file="day2")]
    (item,) = read_conversations(messages, "folder", ReadingOptions(), "B", ())
    assert isinstance(item, Located)
    assert (item.file, item.line) == ("day1", 5)


def test_problems_come_through_and_texts_hold_what_a_file_can() -> None:
    problem = Problem("f", 3, "bad", "mend")
    messages = [
        ChatMessage(1, "A", " a\0b\ud800 ", 1),
        problem,
        ChatMessage(2, "B", "c", 4),
        ChatMessage(3, "B", " ", 5),
    ]
    assert talks(messages) == (["u:a\ufffdb\ufffd a:c"], [problem])


def test_speakers_come_with_most_messages_first() -> None:
    assert speakers(chat("A 1|B 2|C 3|B 4|C 5")) == (Speaker("B", 2), Speaker("C", 2), Speaker("A", 1))
    assert speakers([]) == ()


@pytest.mark.parametrize(
    ("script", "bot"),
    [
        ("A hi|B hello||A hi|B hello||B hi|A hello", "B"),  # answers most often
        ("A hi|B x|A y||B hi|A x|B y||A hi|B x|A y", "A"),  # equally often, has the last word
        ("A hi|B x|A y||B hi|A x|B y", "B"),  # spoke later
        ("A one|A two|A three|A four|B yes||A five|B no", "B"),
    ],
)
def test_whoever_answers_most_often_is_the_bot(script: str, bot: str) -> None:
    found = survey(chat(script), ReadingOptions())
    assert guess_bot(found, ReadingOptions(), "f") == bot


def test_whom_the_export_calls_a_bot_is_it_unless_it_answers_nobody() -> None:
    def messages(authors: str) -> Iterator[ChatMessage]:
        return (ChatMessage(None, author, "x", 1, by_bot=author == "R") for author in authors)

    assert survey(messages("ABABARAB"), ReadingOptions()).likely_bot == "R"
    assert survey(messages("RABABAB"), ReadingOptions()).likely_bot == "B"


@pytest.mark.parametrize("name", ["Anna Weiß", "anna weiss", " ANNA  WEIß ", "@anna weiß", "~Anna Weiß"])
def test_the_person_may_name_the_bot_in_any_case(name: str) -> None:
    found = Survey((Speaker("Bob", 3), Speaker("Anna Weiß", 2)), "Bob")
    assert guess_bot(found, ReadingOptions(bot=name), "f") == "Anna Weiß"


def test_a_bot_that_nobody_is_gets_the_list_of_names() -> None:
    found = Survey(tuple(Speaker(f"N{number}", 1) for number in range(12)), "N0")
    with pytest.raises(DataError) as error:
        guess_bot(found, ReadingOptions(bot="Zoe"), "chat.txt")
    assert error.value.sentence() == (
        'chat.txt: Nobody in this chat is called "Zoe". Choose one of them as the bot: "N0", "N1", "N2", "N3", "N4", '
        '"N5", "N6", "N7", "N8", "N9" and 2 more.'
    )


def test_one_speaker_or_none_is_no_chat() -> None:
    with pytest.raises(DataError, match='Only "Anna" writes in this chat: nobody answers'):
        guess_bot(Survey((Speaker("Anna", 9),), "Anna"), ReadingOptions(), "f")
    with pytest.raises(DataError, match="No message in this chat export holds text"):
        guess_bot(Survey((), ""), ReadingOptions(), "f")


def test_too_many_people_are_no_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "MAX_SPEAKERS", 3)
    with pytest.raises(DataError, match="More than 3 people"):
        speakers(chat("A 1|B 2|C 3|D 4"))


NAMES = ["Anna Weiß", "Bob", "+49 170 1234567", "Dr. Anna-Lena Özil", "The Bot", "田中", "अनिता शर्मा", ".", "Carl 🌸"]


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("Hi Anna Weiß, ANNA and @anna weiss!", "Hi Person 1, Person 1 and @Person 1!"),
        ("Bob's dog, bobby and Bobs", "Person 2's dog, bobby and Bobs"),
        ("@491701234567 or +49 170 1234567", "@Person 3 or +Person 3"),
        ("Anna-Lena and anna lena özil", "Person 4 and Person 4 özil"),
        ("Dr. Anna-Lena Özil", "Person 4"),
        ("the bot is the Bot, theatre", "Person 5 is Person 5, theatre"),
        ("the end. bot", "the end. bot"),
        ("田中さん、こんにちは", "Person 6さん、こんにちは"),
        ("अनिता, अनिताभ और शर्मा", "Person 7, अनिताभ और शर्मा"),
        ("Carl.", "Person 9."),
        ("Anna\nWeiß", "Person 1\nWeiß"),
        ("nothing here . at all", "nothing here . at all"),
        ("", ""),
    ],
)
def test_names_become_numbers(text: str, replaced: str) -> None:
    assert Pseudonyms(NAMES).replace_names(text) == replaced


def test_names_are_replaced_only_on_request() -> None:
    messages: list[ChatMessage | Problem] = [ChatMessage(1, "Anna", "Hi Bob", 1), ChatMessage(2, "Bob", "Hi anna", 2)]
    assert talks(messages, "Bob")[0] == ["u:Hi Bob a:Hi anna"]
    assert talks(messages, "Bob", ReadingOptions(names="replace"))[0] == ["u:Hi Person 2 a:Hi Person 1"]


def test_a_first_name_at_the_very_end_of_a_text() -> None:
    known = Pseudonyms(["Mara Finch", "Teapot Shop"])
    assert known.replace_names("I asked Mara") == "I asked Person 1"
    assert known.replace_names("Mara Finch and the Teapot") == "Person 1 and the Person 2"
