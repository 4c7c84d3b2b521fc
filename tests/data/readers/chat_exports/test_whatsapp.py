"""WhatsApp's exports in the styles of many languages: dates, authors, notices, media."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_app.data.readers.chat_exports import whatsapp
from chat_app.data.readers.chat_exports import whatsapp_system_messages as whatsapp_marks
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.chat_exports.whatsapp_system_messages import strip_system_text
from chat_app.data.readers.chat_exports.whatsapp_timestamps import detect_date_order
from chat_app.data.readers.text_source import open_source
from chat_app.data.readers.types import Problem


def read(tmp_path: Path, text: str | bytes) -> list[ChatMessage | Problem]:
    path = tmp_path / "chat.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(whatsapp.read_messages(open_source(path)))


def said(tmp_path: Path, text: str) -> list[tuple[str, str]]:
    found = read(tmp_path, text)
    return [(message.author, message.text) for message in found if isinstance(message, ChatMessage)]


def seconds(*moment: int) -> float:
    return datetime(*moment, tzinfo=timezone.utc).timestamp()  # type: ignore[arg-type]


# The same two messages, at 23:59(:01) on the last of December 2023 and at 00:05 of the next day.
STYLES = {
    "iPhone, German": ("[31.12.23, 23:59:01] ", "[01.01.24, 00:05:01] "),
    "iPhone, American": ("[12/31/23, 11:59:01\u202fPM] ", "[1/1/24, 12:05:01\u202fAM] "),
    "iPhone, marks everywhere": ("\u200e[31/12/2023, 23:59:01] \u202a", "\u200e[01/01/2024, 00:05:01] \u202a"),
    "iPhone, Swedish": ("[2023-12-31 kl. 23:59:01] ", "[2024-01-01 kl. 00:05:01] "),
    "iPhone, Chinese": ("[2023/12/31 下午11:59:01] ", "[2024/1/1 上午12:05:01] "),
    "iPhone, Korean": ("[2023. 12. 31. 오후 11:59:01] ", "[2024. 1. 1. 오전 12:05:01] "),
    "Android, British": ("31/12/2023, 23:59 - ", "01/01/2024, 00:05 - "),
    "Android, American": ("12/31/23, 11:59 PM - ", "1/1/24, 12:05 AM - "),
    "Android, Indian": ("31/12/23, 11:59 pm - ", "01/01/24, 12:05 am - "),
    "Android, German": ("31.12.23, 23:59 - ", "01.01.24, 00:05 - "),
    "Android, ISO": ("2023-12-31, 23:59 - ", "2024-01-01, 00:05 - "),
    "Android, Japanese": ("2023/12/31 23:59 - ", "2024/01/01 0:05 - "),
    "Android, Japanese halves": ("2023/12/31 午後11:59 - ", "2024/01/01 午前12:05 - "),
    "Android, Dutch": ("31-12-2023 23:59 - ", "01-01-2024 00:05 - "),
    "Android, Spanish": ("31/12/23, 11:59 p.\u00a0m. - ", "1/1/24, 12:05 a.\u00a0m. - "),
    "Android, French": ("31/12/2023 à 23:59 - ", "01/01/2024 à 00:05 - "),
    "Android, Canadian": ("2023-12-31 23 h 59 - ", "2024-01-01 00 h 05 - "),
    "Android, Portuguese": ("31/12/2023 às 23:59 - ", "01/01/2024 às 00:05 - "),
    "Android, Finnish": ("31.12.2023 klo 23.59 - ", "1.1.2024 klo 0.05 - "),
    "Android, Czech": ("31. 12. 2023 23:59 - ", "1. 1. 2024 0:05 - "),
    "Android, Hungarian": ("2023. 12. 31. 23:59 - ", "2024. 01. 01. 0:05 - "),
    "Android, Bulgarian": ("31.12.2023 г., 23:59 - ", "1.01.2024 г., 0:05 - "),
    "Android, Turkish": ("31.12.2023 ÖS 11:59 - ", "1.01.2024 ÖÖ 12:05 - "),
    "Android, Indonesian": ("31/12/23 23.59 - ", "01/01/24 00.05 - "),
    "Android, Arabic": ("٣١\u200f/١٢\u200f/٢٠٢٣، ١١:٥٩ م - ", "١\u200f/١\u200f/٢٠٢٤، ١٢:٠٥ ص - "),
    "Android, Hindi": ("31/12/23, 11:59 अपराह्न - ", "1/1/24, 12:05 पूर्वाह्न - "),
    "Android, Chinese": ("2023年12月31日 下午11:59 - ", "2024年1月1日 上午12:05 - "),
    "Android, Korean": ("2023년 12월 31일 오후 11:59 - ", "2024년 1월 1일 오전 12:05 - "),
    "Android, time first": ("23:59, 31/12/2023 - ", "0:05, 1/1/2024 - "),
    "before 2014": ("31/12/2023 23:59:01: ", "01/01/2024 00:05:01: "),
}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_gives_the_same_messages(tmp_path: Path, style: str) -> None:
    first, second = STYLES[style]
    text = f"{first}Anna: hi\nand a second line\n{second}Bob: happy new year: 2024!\n"
    path = tmp_path / "chat.txt"
    path.write_text(text, encoding="utf-8")
    assert whatsapp.is_whatsapp(open_source(path))
    rest = 1 if ":01" in first else 0
    assert read(tmp_path, text) == [
        ChatMessage(seconds(2023, 12, 31, 23, 59, rest), "Anna", "hi\nand a second line", 1),
        ChatMessage(seconds(2024, 1, 1, 0, 5, rest), "Bob", "happy new year: 2024!", 3),
    ]


def test_persian_digits_and_dates_of_another_calendar_keep_their_distance(tmp_path: Path) -> None:
    one, two = read(tmp_path, "۱۴۰۲/۱۰/۱۰، ۲۳:۵۸ - Anna: سلام\n۱۴۰۲/۱۰/۱۱، ۰۰:۰۲ - Bob: خوبی؟\n")
    assert isinstance(one, ChatMessage)
    assert isinstance(two, ChatMessage)
    assert one.time is not None
    assert two.time == one.time + 240
    assert (one.text, two.text) == ("سلام", "خوبی؟")


@pytest.mark.parametrize(
    ("dates", "order"),
    [
        ([("1", "2", "23"), ("13", "2", "23")], "dmy"),
        ([("1", "2", "23"), ("1", "13", "23")], "mdy"),
        ([("1", "12", "23"), ("2", "1", "23"), ("3", "1", "23")], "mdy"),  # the days of 12 January to 3 January go back
        ([("9", "10", "23"), ("10", "9", "23"), ("10", "10", "23")], "mdy"),
        ([("1", "2", "23")], "dmy"),
        ([("1", "2", "2023"), ("2", "2", "2023")], "dmy"),
        ([("2023", "2", "1")], "ymd"),
        ([("31", "12", "23"), ("1", "13", "23"), ("30", "12", "23")], "dmy"),
        ([], "dmy"),
    ],
)
def test_the_whole_file_says_which_number_is_the_day(dates: list[tuple[str, str, str]], order: str) -> None:
    assert detect_date_order(dates) == order


NOTICES = [
    "Messages and calls are end-to-end encrypted. No one outside of this chat can read them. Learn more: https://x.y/z",
    "Nachrichten und Anrufe sind Ende-zu-Ende-verschlüsselt.",
    "Anna created group “Party”",
    'Anna changed the subject from "A: x" to "B: y"',
    "Bob changed the group description: see https://example.org: now",
    "Anna hat den Betreff geändert: Neues Jahr",
    "Anna cambió la descripción del grupo: nueva",
    "Anna mudou o assunto para: festa",
    "Anna a changé le sujet : de: ceci",
    "Anna изменил(-а) тему группы: новая",
    "Anna joined using this group's invite link",
    "+49 170 1234567 left",
    "Your security code with Bob changed. Tap to learn more.",
]


@pytest.mark.parametrize("notice", NOTICES)
def test_notices_are_passed_over_with_all_their_lines(tmp_path: Path, notice: str) -> None:
    text = f"31/12/2023, 10:00 - Anna: hi\n31/12/2023, 10:01 - {notice}\nmore of it\n31/12/2023, 10:02 - Bob: yes\n"
    assert said(tmp_path, text) == [("Anna", "hi"), ("Bob", "yes")]


MEDIA = [
    "<Media omitted>", "<Medien ausgeschlossen>", "<Multimedia omitido>", "<Mídia oculta>", "<Médias omis>",
    "<Media omessi>", "<Media weggelaten>", "<Без медиафайлов>", "<Medya dahil edilmedi>", "<Media tidak disertakan>",
    "<pominięto multimedia>", "<تم استبعاد الوسائط>", "<המדיה לא נכללה>", "<मीडिया शामिल नहीं है>", "<省略多媒体文件>",
    "<メディアは含まれていません>", "image omitted", "Bild weggelassen", "Video weggelassen", "imagen omitida",
    "GIF omitted", "sticker omitted", "imagem ocultada", "image absente", "immagine omessa", "audio omitted",
    "图像已忽略",
    "画像は含まれていません", "사진 생략됨", "IMG-20231231-WA0001.jpg (file attached)",
    "PTT-20231231-WA0007.opus (Datei angehängt)",
    "Paper, final.pdf (file attached)", "STK-20231231-WA0002.webp (archivo adjunto)",
    "IMG-20231231-WA0001.jpg (ekli bir şey)",
    "\u200e<attached: 00000012-PHOTO-2023-12-31-10-01-00.jpg>", "<angehängt: 00000012-PHOTO.jpg>", "<adjunto: 12.opus>",
    "paper.pdf • \u200e3 pages \u200edocument omitted", "This message was deleted",
    "You deleted this message",
    "Diese Nachricht wurde gelöscht.", "Du hast diese Nachricht gelöscht.", "Se eliminó este mensaje.",
    "Mensagem apagada",
    "Ce message a été supprimé", "Questo messaggio è stato eliminato", "Dit bericht is verwijderd", "Bu mesaj silindi",
    "Данное сообщение удалено", "このメッセージは削除されました", "此消息已删除", "null", "Missed voice call",
    "POLL:\nWhere?\nOPTION: here (1 vote)", "location: https://maps.google.com/?q=52.5,13.4",
    "Waiting for this message. This may take a while.", "",
]  # fmt: skip


@pytest.mark.parametrize("mark", MEDIA)
def test_what_nobody_said_is_passed_over(tmp_path: Path, mark: str) -> None:
    text = f"31/12/2023, 10:00 - Anna: hi\n31/12/2023, 10:01 - Anna: {mark}\n31/12/2023, 10:02 - Bob: yes\n"
    assert said(tmp_path, text) == [("Anna", "hi"), ("Bob", "yes")]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("IMG-20231231-WA0001.jpg (file attached)\nlook at this", "look at this"),
        ("<Media omitted>\nmy caption", "my caption"),
        ("a caption \u200e<attached: 0001-PHOTO.jpg>", "a caption"),
        ("hello \u200e<This message was edited>", "hello"),
        ("hallo <Diese Nachricht wurde bearbeitet.>", "hallo"),
        ("hello (edited)", "hello"),
        ("see https://example.org/a: it is there", "see https://example.org/a: it is there"),
        ("1 < 2: that is true > 0", "1 < 2: that is true > 0"),
        ("an image omitted by me", "an image omitted by me"),
        ("report.pdf is ready", "report.pdf is ready"),
        ("@\u2068Anna Weiss\u2069 come", "@Anna Weiss come"),
        ("first\n\nthird", "first\n\nthird"),
        ("he wrote\n[31/12, 23:59] Bob: hi", "he wrote\n[31/12, 23:59] Bob: hi"),
    ],
)
def test_what_somebody_said_is_kept(tmp_path: Path, written: str, kept: str) -> None:
    text = f"31/12/2023, 10:00 - Anna: {written}\n31/12/2023, 10:02 - Bob: yes\n"
    assert said(tmp_path, text) == [("Anna", kept), ("Bob", "yes")]


def test_the_mark_of_an_iphone_tells_what_it_wrote_itself(tmp_path: Path) -> None:
    text = (
        "[31.12.23, 10:00:00] Familie: \u200eNachrichten und Anrufe sind Ende-zu-Ende-verschlüsselt.\n"
        "[31.12.23, 10:00:00] Familie: \u200eAnna hat diese Gruppe erstellt.\n"
        "[31.12.23, 10:00:01] Anna: hi\n[31.12.23, 10:00:02] Bob: hi\n"
        "[31.12.23, 10:00:03] Anna: \u200ejotain jätettiin pois\n[31.12.23, 10:00:04] Bob: what?\n"
        "[31.12.23, 10:00:05] Anna: nothing\n"
    )
    assert said(tmp_path, text) == [("Anna", "hi"), ("Bob", "hi"), ("Bob", "what?"), ("Anna", "nothing")]


def test_a_mark_before_most_texts_means_nothing(tmp_path: Path) -> None:
    text = "[31.12.23, 10:00:00] Anna: \u200ehi\n[31.12.23, 10:00:01] Bob: \u200ehello\n"
    assert said(tmp_path, text) == [("Anna", "hi"), ("Bob", "hello")]


@pytest.mark.parametrize(
    ("written", "author"),
    [
        ("~\u202fAnna", "Anna"), ("~Anna", "Anna"), ("Anna 🌸", "Anna 🌸"),
        ("\u202a+49\u00a0170\u00a01234567\u202c", "+49 170 1234567"),
        ("Anna (work)", "Anna (work)"), ("Dr. Anna Weiß-Öztürk", "Dr. Anna Weiß-Öztürk"), ("安娜", "安娜"), ("A", "A"),
    ],
)  # fmt: skip
def test_authors_are_named_as_people_know_them(tmp_path: Path, written: str, author: str) -> None:
    assert said(tmp_path, f"31/12/2023, 10:00 - {written}: hi\n") == [(author, "hi")]


def test_a_name_may_hold_a_colon(tmp_path: Path) -> None:
    lines = [
        f"31/12/2023, 10:{minute:02} - Team: {'Anna' if minute % 2 else 'Bob'}: hi {minute}" for minute in range(6)
    ]
    text = "\n".join([*lines, "31/12/2023, 11:00 - Carl: note: one", "31/12/2023, 11:01 - Carl: two"])
    found = said(tmp_path, text)
    assert found[:2] == [("Team: Bob", "hi 0"), ("Team: Anna", "hi 1")]
    assert found[-2:] == [("Carl", "note: one"), ("Carl", "two")]


@pytest.mark.parametrize(
    "text",
    [
        "Hello: this is prose.\nIt goes on.\n",
        "On 31/12/2023, 23:59 - Anna: hi\n",
        "2023-12-31 23:59:01 - INFO: started\n2023-12-31 23:59:02 - ERROR: stopped\n",
        "31/12/2023, 23:59 - a diary without people\n01/01/2024, 10:00 - still nobody\n",
        "context\treply\nhi\thello\n",
        "3.14.15: 9\n",
        "\n",
    ],
)
def test_other_texts_are_not_taken_for_a_chat(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.txt"
    path.write_text(text, encoding="utf-8")
    assert not whatsapp.is_whatsapp(open_source(path))


def test_lines_before_the_first_message_belong_to_nobody(tmp_path: Path) -> None:
    assert said(tmp_path, "my chat\n\n31/12/2023, 10:00 - Anna: hi\n") == [("Anna", "hi")]


def test_a_broken_line_costs_its_message_and_is_named(tmp_path: Path) -> None:
    text = (
        "31/12/2023, 10:00 - Anna: grüße\n".encode()
        + b"31/12/2023, 10:01 - Bob: br\xf6ken\nrest\n"
        + "31/12/2023, 10:02 - Anna: schön\nzwei\n".encode()
        + b"dr\xe9i\n"
        + "31/12/2023, 10:03 - Bob: ähm\n31/12/2023, 10:04 - Bob: öh".encode()
    )
    found = read(tmp_path, text)
    assert [item.line for item in found if isinstance(item, Problem)] == [2, 6]
    assert [item.text for item in found if isinstance(item, ChatMessage)] == ["grüße", "ähm", "öh"]


def test_a_message_without_end_is_refused(tmp_path: Path) -> None:
    endless = "31/12/2023, 10:00 - Anna: hi\n" + "word " * 10 * 5_000 + "\n" + "31/12/2023, 10:01 - Bob: yes\n"
    problem, message = read(tmp_path, endless)
    assert isinstance(problem, Problem)
    assert (problem.line, problem.reason) == (1, "This message has more than 200,000 characters.")
    assert isinstance(message, ChatMessage)


AUTHORS = st.sampled_from(["Anna", "Bob Weiß", "+49 170 1234567", "安娜", "Zoë 🌸"])
SIGNS = st.characters(exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp"], exclude_characters="<>[]•:()\ufeff")
TEXTS = st.lists(st.text(SIGNS, min_size=1, max_size=20).map(lambda text: f"x{text}x"), min_size=1, max_size=3)
MOMENTS = st.datetimes(datetime(2009, 1, 1), datetime(2049, 12, 31)).map(lambda moment: moment.replace(microsecond=0))
CHATS = st.lists(st.tuples(MOMENTS, AUTHORS, TEXTS.map("\n".join)), min_size=1, max_size=8)
WRITERS = {
    "iPhone": "[{0:%d}.{0:%m}.{0:%y}, {0:%H:%M:%S}] {1}: {2}",
    "iPhone, American": "[{0:%m}/{0:%d}/{0:%y}, {0:%I:%M:%S}\u202f{0:%p}] {1}: {2}",
    "Android": "{0:%d}/{0:%m}/{0:%Y}, {0:%H:%M} - {1}: {2}",
    "Android, American": "{0:%m}/{0:%d}/{0:%y}, {0:%I:%M}\u202f{0:%p} - {1}: {2}",
    "Android, ISO": "{0:%Y}-{0:%m}-{0:%d}, {0:%H:%M} - {1}: {2}",
}


@pytest.mark.parametrize("style", WRITERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chat=CHATS)
def test_what_is_written_in_a_style_comes_back(
    tmp_path: Path, style: str, chat: list[tuple[datetime, str, str]]
) -> None:
    # A date that has only one reading, so that the order is known: no day is the 49th, and no month the 31st.
    chat = sorted([*chat, (datetime(2049, 12, 31, 1, 2), "Anna", "xx")])
    expected = []
    line = 1
    for moment, author, text in chat:
        exact = moment if "iPhone" in style else moment.replace(second=0)
        expected.append(ChatMessage(exact.replace(tzinfo=timezone.utc).timestamp(), author, text, line))
        line += text.count("\n") + 1
    assert read(tmp_path, "\n".join(WRITERS[style].format(*message) for message in chat)) == expected


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.sampled_from("[]0123456789/.,:- APMapmAnna\u200e\u202f<>\n年月日下午٣"), max_size=200))
def test_no_text_makes_reading_fail(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.txt"
    path.write_text(text + "x", encoding="utf-8")
    source = open_source(path)
    whatsapp.is_whatsapp(source)
    assert all(isinstance(item, ChatMessage | Problem) for item in whatsapp.read_messages(source))


@pytest.mark.parametrize(
    "hostile", [" " * 199_000 + "x)", "<" * 199_000 + ":>", "<a:b." * 30_000 + ">", "(" * 99_000 + ".)"]
)
def test_hostile_texts_are_read_as_fast_as_others(hostile: str) -> None:
    assert (
        whatsapp_marks.strip_system_text(hostile) == hostile.strip()
    )  # a search that grows with the square would take minutes


@pytest.mark.parametrize(
    "text",
    [
        "Plan.docx Dokument weggelassen", "Plan of the shop.xlsx document omitted",
        "Plan.pdf • 4 Seiten Dokument weggelassen",
        "Voice call, 3 min", "Video call, 1 hr 20 min", "Missed voice call, Tap to call back", "Missed video call",
        "Voice call, No answer", "Sprachanruf, 12 Min.", "Verpasster Sprachanruf, Zum Zurückrufen tippen",
        "Llamada de voz, 3 min", "Appel vocal, 45 s", "View once photo", "View once video", "View once voice message",
    ],
)  # fmt: skip
def test_documents_without_pages_calls_and_what_is_seen_once_are_no_text(text: str) -> None:
    assert strip_system_text(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "Voice call, please", "Shall we have a video call?", "I saw the view once photo of yours",
        "Read plan.docx, it is long",
        "The document omitted nothing", "Voice call", "Call me, 3 min", "You know, 3 min",
    ],
)  # fmt: skip
def test_talk_about_calls_and_documents_stays(text: str) -> None:
    assert strip_system_text(text) == text
