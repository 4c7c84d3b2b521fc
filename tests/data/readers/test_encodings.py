"""425 texts in the encodings that people's programs write: at most 10 are read wrongly, and none without a note."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat_app.data.readers import Note, ReadingOptions, read_file
from chat_app.data.readers.encodings import check_encoding, detect_encoding
from chat_app.errors import SettingError

# Two questions with their answers in each language, from which texts of several lengths are made.
TALK: dict[str, list[list[str]]] = json.loads((Path(__file__).parent / "languages.json").read_bytes())
ENCODINGS: dict[str, str] = {
    "fr de es pt it sv da": "cp1252 iso-8859-1 iso-8859-15 mac_roman",
    "cs pl hu hr sl sk ro": "cp1250 iso-8859-2",
    "tr": "cp1254 iso-8859-9",
    "ru bg": "cp1251 iso-8859-5 koi8_r cp866 mac_cyrillic cp855",
    "uk": "cp1251 koi8_u iso-8859-5",
    "el": "cp1253 iso-8859-7",
    "he": "cp1255 iso-8859-8",
    "ar": "cp1256 iso-8859-6",
    "th": "cp874",
    "zh": "gb18030 hz",
    "zh-tw": "big5",
    "ja": "shift_jis euc_jp iso2022_jp",
    "ko": "euc_kr iso2022_kr",
}
COUNT = 425


def iterate_cases() -> Iterator[tuple[str, str, str]]:
    """Language, encoding and text: one pair, the other, both, both twice in turn, and the like, up to 425."""
    orders = ([0], [1], [0, 1], [1, 0], [0, 1, 1], [1, 0, 0])
    count = 0
    for order in orders:
        for languages, encodings in ENCODINGS.items():
            for language in languages.split():
                for encoding in encodings.split():
                    text = "".join("\t".join(TALK[language][place]) + "\n" for place in order)
                    try:
                        text.encode(encoding)
                    except UnicodeEncodeError:
                        continue
                    count += 1
                    if count > COUNT:
                        return
                    yield language, encoding, text


CASES = list(iterate_cases())


def test_of_425_texts_at_most_ten_are_read_wrongly_and_none_in_silence(tmp_path: Path) -> None:
    assert len(CASES) == COUNT
    path = tmp_path / "talk.tsv"
    wrong = []
    for language, encoding, text in CASES:
        path.write_bytes(b"hello\thi\n" + text.encode(encoding))
        reading = read_file(path)
        said = [one.texts for one in reading.conversations[1:]]
        if said != [line.split("\t") for line in text.splitlines()]:
            wrong.append((language, encoding, reading.encoding))
        assert any("Please look" in note.reason for note in reading.notes), (language, encoding)
    assert len(wrong) <= 10, wrong


def test_a_guess_is_said_with_a_line_to_look_at(tmp_path: Path) -> None:
    path = tmp_path / "talk.tsv"
    path.write_bytes("hello\thi\nWie heißt du?\tIch heiße Jürgen.\n".encode("cp1252"))
    (note,) = read_file(path).notes
    assert note == Note(
        "talk.tsv",
        None,
        'Please look: this text was taken for cp1252, as in "Wie heißt du??Ich heiße Jürgen.".',
        "If these are the wrong letters, say the encoding (--encoding NAME).",
    )
    path.write_text("hello\thi, Jürgen\n", encoding="utf-8")
    assert read_file(path).notes == ()


def test_the_encoding_that_a_person_says_goes_before_the_guess(tmp_path: Path) -> None:
    path = tmp_path / "talk.tsv"
    path.write_bytes("Dobrý den?\tŘeknu to.\n".encode("iso-8859-2"))
    reading = read_file(path, options=ReadingOptions(encoding="latin2"))
    assert reading.conversations[0].texts == ["Dobrý den?", "Řeknu to."]
    assert (reading.encoding, reading.notes) == ("iso8859-2", ())
    path.write_bytes(b"\xef\xbb\xbfWho?\tMe.\n")
    assert read_file(path, options=ReadingOptions(encoding="utf-8")).conversations[0].texts == ["Who?", "Me."]


@pytest.mark.parametrize("name", ["latin-77", "base64", "rot13", "\0"])
def test_what_is_no_encoding_of_text_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match="There is no encoding"):
        check_encoding(name)


def test_seven_bits_that_only_look_like_escapes_stay_as_they_are() -> None:
    assert detect_encoding([b"home is ~{here\thi"]) == "utf-8"
