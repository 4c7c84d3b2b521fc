"""One realistic file of every kind that people bring: each is read without a single setting, exactly so.

Those of text lie in `good_inputs`; what cannot be read with the eye is made here.
"""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_app.conversation import Conversation, Message
from chat_app.data.readers import Located, Note, Preview, Problem, iterate, read_file
from chat_app.data.writers import write_jsonl, write_tsv
from tests.data.readers.bad_inputs.packed import zipped
from tests.data.readers.bad_inputs.tables import ROWS, parquet, workbook

HERE = Path(__file__).parent / "good_inputs"
REUSED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

Said = tuple[int, list[str]]

# The kind, and of every conversation its line and what is said: first its part if it is not for training, then a system
# text; ~ stands before what is not learned.
EXPECTED: dict[str, tuple[str, list[Said]]] = {
    "alpaca.json": ("json", [(1, ["Translate to German.\nbread", "Brot"]), (2, ["Say hello.", "Hello!"])]),
    "blended.json": (
        "json",
        [
            (
                1,
                [
                    "SYSTEM I like tea.\nI have a cat.",
                    "Do you like dogs?",
                    "I prefer cats.",
                    "Why is that?",
                    "They are quiet.",
                ],
            )
        ],
    ),
    "chatml.jsonl": ("jsonl", [(1, ["SYSTEM You sell bread.", "Hello", "Hi!"])]),
    "commas.csv": (
        "csv",
        [(2, ["Bread, please.", "Here you are, 3 euros."]), (3, ['She said "no"\nand left.', "Why?"])],
    ),
    "dailydialog.jsonl": ("jsonl", [(1, ["Good morning, sir.", "Good morning, what can I do for you?"])]),
    "data.json": ("json", [(1, ["Hello", "Hi!", "Bread?", "Yes."])]),
    "dialogpt.tsv": (
        "dialogpt",
        [(1, ["~does it hurt ?", "a little .", "poor you !"]), (2, ["hello", "hi you"]), (3, ["hello there", "hi"])],
    ),
    "dialogues_text.txt": (
        "dailydialog",
        [
            (1, ["The kitchen stinks.", "I'll throw out the garbage."]),
            (2, ["So Dick, how about getting some coffee?", "Coffee? I don't like it.", "Not even tea?"]),
        ],
    ),
    "dialogues_validation.txt": ("dailydialog", [(1, ["(valid)", "Good morning, sir.", "Good morning."])]),
    "discord.json": ("discord", [(1, ["Hello @Ben", "Hi!"])]),
    "empathetic.csv": (
        "empathetic",
        [
            (
                2,
                [
                    "I remember the fireworks, with my friend.",
                    "Was this a friend you loved?",
                    "This was a best friend.",
                    "Where did they go?",
                ],
            )
        ],
    ),
    "excel.csv": ("csv", [(3, ["Hello", "Hi!"])]),
    "hashes.jsonl": ("jsonl", [(1, ["Hello", "Hi!", "Bread?", "Yes."]), (2, ["Say hello.", "Hello!"])]),
    "header.tsv": (
        "tsv",
        [(2, ["Do you have bread?", "Yes, fresh every morning."]), (3, ["And cake?", "Only on Fridays."])],
    ),
    "latin-1.csv": ("csv", [(2, ["Wie heißt du?", "Jörg."])]),
    "lists.jsonl": ("jsonl", [(1, ["Hello", "Hi!", "Bread?", "Yes."]), (2, ["Bye", "See you."])]),
    "llama.jsonl": ("jsonl", [(1, ["SYSTEM You sell bread.", "Hello", "Hi!", "Bread?", "Yes."])]),
    "marked.txt": ("marked", [(1, ["Hello", "Hi!", "Bread?", "Yes."]), (6, ["Bye", "See you."])]),
    "messages.csv": (
        "csv",
        [(2, ["Hello", "Hi!"]), (3, ["Where are you?", "In the old town.", "Thanks", "You are welcome."])],
    ),
    "openai.jsonl": (
        "jsonl",
        [(1, ["SYSTEM You sell bread.", "Hello", "~What?", "Bread?", "Yes, please."]), (2, ["Bye", "See you."])],
    ),
    "pairs.json": ("json", [(1, ["Hello", "Hi!"]), (2, ["Bye", "See you."])]),
    "pairs.tsv": (
        "tsv",
        [
            (1, ["Hello", "Hi, how can I help?"]),
            (2, ["When do you open?", "At nine.", "And on Sunday?", "We are closed on Sunday."]),
        ],
    ),
    "parts.json": ("json", [(1, ["Hello", "Hi!"]), (1, ["(valid)", "Bye", "See you."])]),
    "personachat.json": (
        "json",
        [
            (
                1,
                [
                    "SYSTEM I like tea.\nI have two cats.",
                    "Hello, how are you?",
                    "Hi! I am fine.",
                    "Do you have pets?",
                    "Yes, two cats.",
                ],
            ),
            (1, ["(valid)", "SYSTEM I ski.", "What do you do?", "I ski."]),
        ],
    ),
    "pipes.csv": ("csv", [(2, ["Hello, you", "Hi!"]), (3, ["Bye", "See you, soon."])]),
    "preference.jsonl": ("jsonl", [(1, ["Hello", "Hi!"])]),
    "prompt-completion.jsonl": ("jsonl", [(1, ["Hello", "Hi!"]), (2, ["Bread?", "Yes."])]),
    "semicolons.csv": (
        "csv",
        [(2, ["Was kostet das Brot?", "3,50 €"]), (3, ["Und der Kuchen?", "Zwei; oder drei Euro."])],
    ),
    "sharegpt-variant.jsonl": (
        "jsonl",
        [(1, ["SYSTEM You sell bread.", "Hello", "Hi!"]), (2, ["Bread?", "Yes.", "Bye", "See you."])],
    ),
    "sharegpt.json": ("json", [(1, ["SYSTEM You sell bread.", "Hello", "Hi!"]), (2, ["Bread?", "Yes."])]),
    "spreadsheet.tsv": ("tsv", [(2, ['She said "no"\nand left.', "Why?"]), (4, ["Hello", "Hi!"])]),
    "telegram.json": ("telegram", [(1, ["Hello", "See example.org"]), (4, ["Bread?", "Yes."])]),
    "turns.csv": ("csv", [(2, ["Hello", "Hi!", "Bread?", "Yes."]), (3, ["Bye", "See you."])]),
    "turns.jsonl": ("jsonl", [(1, ["Hello", "Hi!"]), (2, ["Bread?", "Yes."]), (3, ["Bye", "See you."])]),
    "turns.tsv": ("tsv", [(1, ["Hello", "Hi!", "Do you have bread?", "Yes."]), (2, ["Bye", "See you."])]),
    "utf-16.txt": ("tsv", [(2, ["Größe?", "M"])]),
    "whatsapp-android-american.txt": ("whatsapp", [(1, ["Hello Ben!", "Happy new year!"])]),
    "whatsapp-android-english.txt": ("whatsapp", [(2, ["Hello Ben!", "Happy new year!", "Look at that.", "Wow."])]),
    "whatsapp-android-spanish.txt": ("whatsapp", [(1, ["¡Hola!", "¡Feliz año!"])]),
    "whatsapp-iphone-french.txt": ("whatsapp", [(1, ["Salut !", "Bonne année !"])]),
    "whatsapp-iphone-german.txt": (
        "whatsapp",
        [(2, ["Hallo Ben!\nBist du wach?", "Ja. Frohes neues Jahr!"]), (6, ["Kommst du?", "Gleich."])],
    ),
    "whatsapp-iphone-japanese.txt": ("whatsapp", [(1, ["こんばんは", "あけましておめでとう"])]),
}


def shown(item: Located) -> Said:
    conversation = item.conversation
    part = [f"({item.part})"] if item.part != "train" else []
    system = [f"SYSTEM {conversation.system}"] if conversation.system is not None else []
    turns = [message.text if message.in_loss else f"~{message.text}" for message in conversation.turns]
    return item.line, [*part, *system, *turns]


def read(path: Path) -> list[Said]:
    items = list(iterate(path))
    assert [item.sentence() for item in items if isinstance(item, Problem) and not isinstance(item, Note)] == []
    return [shown(item) for item in items if isinstance(item, Located)]


def previews_of(path: Path) -> list[Preview]:
    found: list[Preview] = []
    for _ in iterate(path, on_preview=found.append):
        pass
    return found


def test_there_is_an_expectation_for_every_file() -> None:
    assert sorted(path.name for path in HERE.iterdir()) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_kind_is_read_without_a_setting(name: str, tmp_path: Path) -> None:
    kind, expected = EXPECTED[name]
    path = HERE / name
    assert [one.kind for one in previews_of(path)] == [kind]
    assert read(path) == expected
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read(packed) == expected


@pytest.mark.parametrize("name", EXPECTED)
def test_the_speaker_who_answers_is_the_assistant(name: str) -> None:
    reading = read_file(HERE / name)
    assert all(one.replies for one in reading.conversations)


def test_an_archive_of_all_kinds_is_read_as_its_files_are(tmp_path: Path) -> None:
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in EXPECTED:
            archive.write(HERE / name, f"data/{name}")
    assert read(path) == [said for _, conversations in EXPECTED.values() for said in conversations]
    assert [one.file for one in previews_of(path)] == [f"all.zip/data/{name}" for name in EXPECTED][:50]


def test_a_folder_of_all_kinds_is_read_as_its_files_are() -> None:
    assert read(HERE) == [said for _, (_, conversations) in sorted(EXPECTED.items()) for said in conversations]


BAKERY: list[Said] = [(2, ["Hello", "Hi!"]), (3, ["When?", "At nine."]), (4, ["Bye", "See you."])]
MESSAGES = [[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"}],
            [{"role": "user", "content": "Bread?"}, {"role": "assistant", "content": "Yes."}]]  # fmt: skip
BINARY: dict[str, tuple[bytes, list[Said]]] = {
    "shop.xlsx": (workbook(ROWS), BAKERY),
    "numbers.xlsx": (workbook([["question", "answer"], ["How many?", 3], [2024, 4.5], ["Open?", True]]),
                     [(2, ["How many?", "3"]), (3, ["2024", "4.5"]), (4, ["Open?", "true"])]),
    "messages.xlsx": (workbook([["id", "role", "text"], [1, "user", "Hello"], [1, "bot", "Hi!"]]),
                      [(2, ["Hello", "Hi!"])]),
    "pairs.parquet": (parquet({"question": ["Hello", "Bye"], "answer": ["Hi!", "See you."]}),
                      [(1, ["Hello", "Hi!"]), (2, ["Bye", "See you."])]),
    "messages.parquet": (parquet({"messages": MESSAGES}), [(1, ["Hello", "Hi!"]), (2, ["Bread?", "Yes."])]),
    "dialog.parquet": (parquet({"dialog": [["Hello", "Hi!"]], "act": [[1, 2]], "emotion": [[0, 0]]}),
                       [(1, ["Hello", "Hi!"])]),
    "a-sheet-called.csv": (workbook(ROWS), BAKERY),
}  # fmt: skip


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("way", ["plain", "gz", "zip"])
def test_workbooks_and_parquet_tables_are_read_also_where_they_are_packed(name: str, way: str, tmp_path: Path) -> None:
    content, expected = BINARY[name]
    if way == "gz":
        name, content = f"{name}.gz", gzip.compress(content)
    elif way == "zip":
        name, content = f"{name}.zip", zipped((name, content))
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name) == expected


@pytest.mark.parametrize("packed", [True, False])
def test_an_export_of_slack_is_read_as_a_whole(packed: bool, tmp_path: Path) -> None:
    people = [{"id": "U1", "profile": {"display_name": "Anna"}}, {"id": "U2", "real_name": "Ben"}]
    day = [
        {"type": "message", "subtype": "channel_join", "user": "U1", "ts": "1704103100.000100", "text": "joined"},
        {"type": "message", "user": "U1", "ts": "1704103200.000100", "text": "Hello <@U2>"},
        {"type": "message", "user": "U2", "ts": "1704103260.000100", "text": "Hi &amp; welcome!"},
    ]
    files = {"users.json": people, "channels.json": [], "general/2024-01-01.json": day}
    path = tmp_path / ("slack.zip" if packed else "slack")
    if packed:
        path.write_bytes(zipped(*((name, json.dumps(value).encode()) for name, value in files.items())))
    else:
        for name, value in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(json.dumps(value))
    assert previews_of(path)[0].kind == "slack"
    assert read(path) == [(2, ["Hello @Ben", "Hi & welcome!"])]


# Anything that a person can type, but for the halves of surrogate pairs and NUL, which no text has.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20).map(
    str.strip
)
TEXTS = TEXTS.filter(bool)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """A conversation as reading gives them: it has an answer."""
    texts = draw(st.lists(TEXTS, min_size=2, max_size=6))
    assistant_begins = draw(st.booleans())
    messages = [Message("system", draw(TEXTS))] if draw(st.booleans()) else []
    for number, text in enumerate(texts):
        is_reply = bool(number % 2) != assistant_begins
        messages.append(Message("assistant", text, draw(st.booleans())) if is_reply else Message("user", text))
    return Conversation(tuple(messages))


@REUSED
@given(written=st.lists(conversations(), min_size=1, max_size=5))
def test_lines_of_json_come_back_as_they_were_written(written: list[Conversation], tmp_path: Path) -> None:
    path = tmp_path / "same.jsonl"
    write_jsonl(written, path)
    reading = read_file(path)
    assert reading.conversations == written
    assert reading.lines == list(range(1, len(written) + 1))
    assert reading.problems == []


@REUSED
@given(written=st.lists(conversations(), min_size=1, max_size=5))
def test_a_table_comes_back_as_it_was_written_where_nothing_was_counted_as_lost(
    written: list[Conversation], tmp_path: Path
) -> None:
    path = tmp_path / "same.tsv"
    lossless = [one for one in written if write_tsv([one], path) == 0]
    assert write_tsv(lossless, path) == 0
    if lossless:
        assert read_file(path).conversations == lossless


@REUSED
@given(written=st.lists(conversations(), min_size=2, max_size=3), junk=st.binary(max_size=30))
def test_junk_behind_good_lines_costs_none_of_them(written: list[Conversation], junk: bytes, tmp_path: Path) -> None:
    path = tmp_path / "junk.jsonl"
    write_jsonl(written, path)
    path.write_bytes(
        path.read_bytes() + b"! " + junk.replace(b"\0", b"").replace(b"\r", b"").replace(b"\n", b"") + b"\n"
    )
    items = list(iterate(path))
    assert len([item for item in items if isinstance(item, Located)]) == len(written)
    assert [item.line for item in items if isinstance(item, Problem)] == [len(written) + 1]
