"""Files of many programs in the layout of the original, and exactly what is read from each.

They lie in `kinds`; a folder is what such a program gives as one.
"""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from chat_app.data.readers import Located, Preview, Problem, ReadingOptions, iterate, read_files
from chat_app.errors import DataError
from tests.data.readers.bad_inputs.packed import zipped

HERE = Path(__file__).parent / "kinds"

# The kind, who is taken for the bot ("" where nobody has to be asked), the conversations ("user / assistant"; ~ stands
# before what is not learned, > before what the assistant opens with), and what is said about the rest.
Expected = tuple[str, str, list[str], list[str]]
EXPECTED: dict[str, Expected] = {
    "chatgpt": (
        "chatgpt",
        "",
        ["Name a bread. / Rye bread. / How many grams is it? / 500 grams."],
        ["This is an export of ChatGPT; 2 other files of it hold no talk."],
    ),
    "chatterbot.yml": (
        "chatterbot",
        "",
        ["Do you have bread? / no", "Is it fresh? / Baked this morning. / And warm? / Still warm."],
        [],
    ),
    "claude.json": (
        "claude",
        "",
        ["Name a bread. / ~Rye bread.\nThat is a baguette."],
        ["1 chat has no reply in words.", "1 reply answers a picture or a file, which cannot be read here."],
    ),
    "instagram": (
        "messenger",
        "Anna",
        ["> Kommst du? / Ja, später. / Schön 😀"],
        ["This is an export of Facebook or Instagram; 1 other file of it holds no talk."],
    ),
    "intents.json": (
        "intents",
        "",
        ["Hi there / Hello!", "Good morning / Hello!", "What is a loaf? / Three euros.", "What is a loaf? / 3 €."],
        ['The intent "fallback" has no patterns.'],
    ),
    "messenger-encrypted.json": ("messenger", "Jörg", ["Kommst du? / Ja, später."], []),
    "play.md": (
        "names",
        "Baker",
        ["Is the bread fresh? / Baked this morning.\n\nIt is still warm. / Good. / Six euros, please."],
        [],
    ),
    "play.txt": (
        "names",
        "Ben",
        [
            "Is the bread fresh? / Baked this morning.\nIt is still warm. / Good, I take two. / Six euros, please.",
            "Good evening. / We are closed.",
        ],
        [],
    ),
    "eos.txt": ("eos_lines", "", ["Do you have bread? / Yes. / Is it warm? / Still warm.", "Bye / See you."], []),
    "film.srt": (
        "subtitles",
        "",
        ["Do you have bread, or only cake? / Rye bread. / Good!", "Is it warm? / Feel it."],
        [],
    ),
    "google": (
        "google_chat",
        "Ben",
        ["Do you have bread? / Yes, rye.", "And cake? / No cake."],
        ["This is an export of Google Chat; 2 other files of it hold no talk."],
    ),
    "imessage.txt": (
        "imessage",
        "Me",
        ["Do you have bread? / Yes.\nBaked this morning. / How much? / Three euros."],
        [],
    ),
    "irc.log": ("irc", "ben", ["ben: do you have bread? / anna: yes, rye / how much? / three euros"], []),
    "kakaotalk-computer.txt": (
        "kakaotalk",
        "벤",
        ["빵 있어요? / 네.\n방금 구웠어요. / 얼마예요? / 삼천 원이에요."],
        [],
    ),
    "kakaotalk-iphone.txt": ("kakaotalk", "벤", ["빵 있어요? / 네, 있어요."], []),
    "kakaotalk-phone.txt": ("kakaotalk", "Ben", ["Do you have bread? / Yes. / How much? / Three euros."], []),
    "line-computer.txt": ("line", "Ben Baker", ["Do you have bread? / Yes, rye."], []),
    "line-japanese.txt": ("line", "ベン", ["パンはありますか？ / はい、あります。"], []),
    "line.txt": (
        "line",
        "Ben Baker",
        ['Do you have bread? / Yes.\nBaked this "morning".', "And today? / Rye: two loaves"],
        [],
    ),
    "meeting.vtt": ("subtitles", "Ben Baker", ["Do you have bread? / Yes.\nIt is rye."], []),
    "oobabooga.json": ("oobabooga", "", ["> Good morning! / Do you have bread? / Rye & wheat."], []),
    "otter.txt": ("meeting", "Anna Weiss", ["> Do you have bread? / Yes. It is\nrye. / Good."], []),
    "signal.jsonl": ("signal", "Me", ["Do you have bread? / Yes."], []),
    "signal.md": ("signal", "Me", ["Do you have bread? / Yes: rye. / How much? / Three euros."], []),
    "sillytavern.jsonl": ("sillytavern", "Baker", ["> Good morning, Anna! / Do you have bread? / Rye."], []),
    "skype.json": ("skype", "ben", ["Do you have bread? / Yes & warm :)"], []),
    "sms.xml": (
        "sms",
        "Me",
        ["Do you have bread? 😀 / Yes & warm. / How much? / Three euros."],
        ["1 stretch of talk holds no answer of Me; it was passed over."],
    ),
    "weechat.log": ("irc", "ben", ["do you have bread? / yes, rye / how much? / three euros"], []),
    "zoom-chat.txt": ("meeting", "Ben Baker", ["Do you have bread? / Yes.\nRye."], []),
    "zoom.vtt": ("subtitles", "Ben Baker", ["Do you have bread? / Yes. / Good. / Three euros."], []),
    "bakery.chat": ("bot_framework", "BakeryBot", ["Do you have bread? / Yes: rye. / How much? / Three euros."], []),
    "bread.aiml": (
        "aiml",
        "",
        [
            "DO YOU HAVE BREAD / Yes, rye.",
            "DO YOU HAVE BREAD / Of course.",
            "ANY BREAD / Yes, rye.",
            "ANY BREAD / Of course.",
            "IS IT WARM / Still warm.\nTry it.",
        ],
        ["2 categories need a program to be answered (wildcards, variables, that)."],
    ),
    "convai2.txt": (
        "parlai",
        "",
        ["SYSTEM i bake. / hello / hi / any bread? / rye.", "SYSTEM i ski. / > good morning / hi / do you ski?"],
        [],
    ),
    "cornell": (
        "cornell",
        "",
        ["Café closed?\nDo you have bread? / Yes, rye."],
        [
            "A line of this conversation is not in movie_lines.txt.",
            "This is an export of Cornell Movie-Dialogs; 1 other file of it holds no talk.",
        ],
    ),
    "dialogflow": (
        "dialogflow",
        "",
        [
            "What is a loaf / Three euros. / I take it / Here you are.",
            "What is a loaf / Three euros.",
            "What is a loaf / 3 €.",
        ],
        ["This is an export of Dialogflow; 2 other files of it hold no talk."],
    ),
    "multiwoz.json": ("multiwoz", "", ["Is there a bakery? / Two of them. / Thanks. / Goodbye."], []),
    "oasst-messages.jsonl": ("oasst", "", ["Name a bread. / Rye. / Another? / Wheat."], ["1 tree has no answer."]),
    "oasst-trees.jsonl": ("oasst", "", ["Name a bread. / Rye. / Another? / Wheat."], []),
    "parlai.txt": ("parlai", "", ["SYSTEM i bake. / hello / hi / any bread? / rye.", "bye / see you."], []),
    "schema-guided.json": ("schema_guided", "", ["Is there a bakery? / Two of them."], []),
    "squad.json": (
        "squad",
        "",
        ["Rye bread is dark.\nHow is rye bread? / dark"],
        ["1 question has no answer in the text."],
    ),
    "axolotl-segments.jsonl": ("jsonl", "", ["Do you have bread? / Yes, rye.", "How much? / Three euros."], []),
    "llamafactory-v1.json": (
        "json",
        "",
        ["SYSTEM You bake. / Any bread? / ~Cake. / No! / Rye.", "Name a bread. / Rye."],
        [],
    ),
    "rasa": (
        "rasa",
        "",
        [
            "hey / Hello! / what is a loaf / Three euros.",
            "good morning / Hello! / how much is rye / Three euros.",
            "thanks / You are welcome.",
        ],
        [
            "This is the configuration of a Rasa bot, no talk.",
            "1 step of a story is answered by a program, or by nothing that is written here.",
        ],
    ),
    "rasa1": (
        "rasa",
        "",
        [
            "hey / Hello! / what is a loaf / Three euros.",
            "good morning / Hello! / what is a loaf / Three euros.",
        ],
        [],
    ),
}


def show(item: Located) -> str:
    """A conversation on one line."""
    head = [] if item.conversation.system is None else [f"SYSTEM {item.conversation.system}"]
    turns = [turn.text if turn.in_loss else f"~{turn.text}" for turn in item.conversation.turns]
    if item.conversation.turns[0].role == "assistant":
        turns[0] = f"> {turns[0]}"
    return " / ".join(head + turns)


def read(path: Path, options: ReadingOptions | None = None) -> tuple[list[Preview], list[str], list[str]]:
    """The previews, the conversations and the reasons of the problems."""
    previews: list[Preview] = []
    items = list(iterate(path, options=options, on_preview=previews.append))
    return (
        previews,
        [show(item) for item in items if isinstance(item, Located)],
        [item.reason for item in items if isinstance(item, Problem)],
    )


def test_there_is_an_expectation_for_every_kind() -> None:
    assert sorted(path.name for path in HERE.iterdir()) == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_of_this_kind_is_read_without_a_setting(name: str) -> None:
    kind, bot, conversations, problems = EXPECTED[name]
    previews, said, reasons = read(HERE / name)
    assert [(one.kind, one.bot) for one in previews] == [(kind, bot)]
    assert said == conversations
    assert reasons == problems


@pytest.mark.parametrize("name", EXPECTED)
def test_it_is_read_the_same_where_it_is_packed(name: str, tmp_path: Path) -> None:
    place = HERE / name
    if place.is_dir():
        path = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(place.rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(place).as_posix())
    else:
        path = tmp_path / f"{name}.gz"
        path.write_bytes(gzip.compress(place.read_bytes()))
    _, said, reasons = read(path)
    assert (said, reasons) == EXPECTED[name][2:]


@pytest.mark.parametrize("name", [name for name, expected in EXPECTED.items() if expected[1]])
def test_another_speaker_can_be_chosen_as_the_bot(name: str) -> None:
    speakers = [speaker.name for speaker in read(HERE / name)[0][0].speakers]
    assert len(speakers) > 1
    for speaker in speakers:
        try:
            previews, _, _ = read(HERE / name, ReadingOptions(bot=speaker))
        except DataError:
            continue  # nobody is answered by that person
        assert previews[0].bot == speaker


SPOKEN = ("Anna: Do you have bread?", "Ben: Yes, rye.", "Anna: How much?", "Ben: Three euros.")
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
WORD_XML = (
    f'<?xml version="1.0"?><w:document xmlns:w="{WORD}"><w:body>'
    + "".join(
        f"<w:p><w:r><w:t>{line[:4]}</w:t></w:r><w:r><w:delText>gone</w:delText><w:t>{line[4:]}</w:t></w:r></w:p>"
        for line in SPOKEN
    )
    + "</w:body></w:document>"
)
PAIRS = (("Bread?", "Rye."), ("Bye", "Bye!"))
CELL = "<w:tc><w:p><w:r><w:t>{}</w:t></w:r></w:p></w:tc>"
TABLE_XML = (
    f'<w:document xmlns:w="{WORD}"><w:body><w:tbl>'
    + "".join(f"<w:tr>{CELL.format(question)}{CELL.format(answer)}</w:tr>" for question, answer in PAIRS)
    + "</w:tbl></w:body></w:document>"
)
OPEN_XML = (
    '<office:document-content xmlns:office="o" xmlns:text="t"><office:body><office:text>'
    + "".join(f"<text:p>{line[:4]}<text:span>{line[4:]}</text:span></text:p>" for line in SPOKEN)
    + "<text:p/></office:text></office:body></office:document-content>"
)
ODT = b"application/vnd.oasis.opendocument.text"
DOCUMENTS = {
    "talk.docx": ([("[Content_Types].xml", b"<Types/>"), ("word/document.xml", WORD_XML.encode())], "names",
                  ["Do you have bread? / Yes, rye. / How much? / Three euros."]),
    "table.docx": ([("[Content_Types].xml", b"<Types/>"), ("word/document.xml", TABLE_XML.encode())], "tsv",
                   ["Bread? / Rye.", "Bye / Bye!"]),
    "talk.odt": ([("mimetype", ODT), ("content.xml", OPEN_XML.encode())], "names",
                 ["Do you have bread? / Yes, rye. / How much? / Three euros."]),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("packed", [False, True])
def test_the_text_of_a_document_is_read_as_a_text_is(name: str, packed: bool, tmp_path: Path) -> None:
    parts, kind, conversations = DOCUMENTS[name]
    content = zipped(*parts)
    path = tmp_path / (f"{name}.zip" if packed else name)
    path.write_bytes(zipped((name, content)) if packed else content)
    previews, said, reasons = read(path)
    assert ([one.kind for one in previews], said, reasons) == ([kind], conversations, [])


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
REFUSED: dict[str, tuple[bytes, str]] = {
    "bomb.aiml": (f"{BOMB}<aiml><category><pattern>A</pattern><template>&b;</template></category></aiml>".encode(),
                  "defines entities"),
    "cut.aiml": (b"<aiml><category><pattern>A</pattern>", "is not XML"),
    "deep.xml": (b"<smses>" + b"<a>" * 1_000, "nested too deeply"),
    "references.yml": (b"conversations:\n- - &a hi\n  - *a\n", "uses references"),
    "deep.yml": (b"conversations:\n- - hi\n  - " + b"[" * 100 + b"]" * 100 + b"\n", "holds too many levels"),
    "broken.yml": (b"conversations:\n- - hi\n  - 'no\n", "is not YAML"),
    "bomb.docx": (zipped(("[Content_Types].xml", b"<Types/>"), ("word/document.xml", b" " * 40_000_000)),
                  "unpacks to far more than its size"),
    "bomb.odt": (zipped(("mimetype", ODT), ("content.xml", f"{BOMB}<p>&b;</p>".encode())), "defines entities"),
    "agent.json": (b'{"responses": [{"affectedContexts": [], "messages": []}], "fallbackIntent": false}',
                   "without what people say"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_grow_or_breaks_off_is_refused_in_words(name: str, tmp_path: Path) -> None:
    content, expected = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=expected):
        list(iterate(path))


def test_files_of_one_bot_that_are_given_together_are_understood_together() -> None:
    rasa = HERE / "rasa"
    reading = read_files([rasa / "nlu.yml", rasa / "domain.yml", rasa / "stories.yml"])
    assert reading.conversations[0].texts == ["hey", "Hello!", "what is a loaf", "Three euros."]
    with pytest.raises(DataError, match="without its answers"):
        read_files([rasa / "nlu.yml"])


def test_a_side_file_of_an_export_is_named() -> None:
    with pytest.raises(DataError, match="account in a ChatGPT export, no chat"):
        list(iterate(HERE / "chatgpt" / "user.json"))
    with pytest.raises(DataError, match="file of a Facebook or Instagram export"):
        list(iterate(HERE / "instagram" / "personal_information" / "personal_information.json"))


def test_messages_of_openassistant_may_be_one_list(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_bytes(b"[\n" + b",\n".join((HERE / "oasst-messages.jsonl").read_bytes().splitlines()) + b"\n]\n")
    previews, conversations, _ = read(path)
    assert (previews[0].kind, conversations) == ("oasst", EXPECTED["oasst-messages.jsonl"][2])


def test_references_in_xml_become_the_signs_that_they_mean(tmp_path: Path) -> None:
    path = tmp_path / "sms.xml"
    kept = (HERE / "sms.xml").read_bytes()
    path.write_bytes(kept.replace(b"&#55357;&#56832;", b"&#55203;&#xD83D;&#xde00;&#x1F600;&#55357;&#1;"))
    assert "do you have bread? 힣😀😀\ufffd\ufffd" in "".join(read(path)[1]).casefold()
