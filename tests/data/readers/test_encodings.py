"""425 texts in the encodings that people's programs write: at most 10 are read wrongly, and none without a note."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chat_app.data.readers import Note, ReadingOptions, read_file
from chat_app.data.readers.encodings import check_encoding, detect_encoding
from chat_app.errors import SettingError

# Question and answer in each language; with several of them, texts of several lengths are made.
TALK: dict[str, list[tuple[str, str]]] = {
    "fr": [("Où est le café ?", "Il est là-bas, à côté de l'église."), ("Déjà prêt ?", "Oui, même très tôt, ça y est.")],
    "de": [("Wie heißt du?", "Ich heiße Jürgen und wohne in Köln."), ("Fährst du früh?", "Nein, später, über Düren.")],
    "es": [("¿Dónde está la estación?", "Ahí, señor, a la izquierda."), ("¿Vendrás mañana?", "Sí, después de comer.")],
    "pt": [("Você tem pão?", "Não, só amanhã de manhã."), ("É possível trocar?", "Então não há opção, já acabou.")],
    "it": [("Perché non c'è più caffè?", "È finito già ieri, però domani c'è."), ("Così?", "Sì, perciò può entrare.")],
    "sv": [("Har ni öppet på söndag?", "Nej, tyvärr är vi stängda då."), ("Är det långt?", "Nej, två hållplatser härifrån.")],
    "da": [("Hvornår åbner I?", "Vi åbner klokken ni på lørdag."), ("Er brødet færdigt?", "Ja, det er lige kommet på hylden, også rugbrød.")],
    "cs": [("Dobrý den, jak se máte?", "Děkuji, řeknu vám to zítra, příliš žluťoučký kůň."), ("Kde je nádraží?", "Běžte rovně, pak doleva, není to daleko, asi čtvrt hodiny.")],
    "pl": [("Cześć, jak się masz?", "Dziękuję, świetnie, łódź już płynie."), ("Gdzie jest dworzec?", "Proszę iść prosto, później w lewo, to już blisko.")],
    "hu": [("Mikor nyit az üzlet?", "Kilenckor, de hétfőn zárva vagyunk. Köszönöm, hogy megkérdezte, őszintén."), ("Van még friss kenyér?", "Igen, most sült, nagyon finom és még meleg is, kérem, kóstolja meg.")],
    "hr": [("Što želite jesti?", "Želim čaj i kolač, a možda još nešto kasnije."), ("Gdje je kolodvor?", "Idite ravno, pa lijevo, nije daleko, još pet minuta pješice.")],
    "sl": [("Kje je železniška postaja?", "Pojdite naravnost, čez cesto in še malo."), ("Ali imate še kruh?", "Seveda, svež je, ravnokar smo ga vzeli iz peči, še čisto vroč.")],
    "sk": [("Máte ešte chlieb?", "Áno, čerstvý chlieb máme každý deň od šiestej, príďte skôr."), ("Kde je stanica?", "Choďte rovno, potom doľava, nie je to ďaleko, asi päť minút.")],
    "ro": [("Unde este gara?", "Mergeţi drept înainte şi apoi la stânga, vă rog, este lângă piaţă."), ("Aveţi pâine?", "Da, proaspătă, chiar acum am scos-o din cuptor şi este încă fierbinte.")],
    "tr": [("Bugün açık mısınız?", "Evet, akşam dokuza kadar açığız, şimdi gelebilirsiniz."), ("İstasyon nerede?", "Düz gidin, sonra sola dönün, çok uzak değil, beş dakika yürüyüş.")],
    "ru": [("Привет, как дела?", "Хорошо, спасибо. А у вас?"), ("Где здесь вокзал?", "Идите прямо, потом налево, это недалеко, минут пять пешком.")],
    "uk": [("Де знаходиться вокзал?", "Ідіть прямо, а потім ліворуч, це недалеко."), ("Чи є свіжий хліб?", "Так, щойно з печі, ще теплий, їжте на здоров'я.")],
    "bg": [("Къде е гарата?", "Вървете направо и след това наляво, моля."), ("Има ли пресен хляб?", "Да, току-що го извадихме от пещта, още е топъл.")],
    "el": [("Πού είναι ο σταθμός;", "Πηγαίνετε ευθεία και μετά αριστερά, παρακαλώ."), ("Έχετε φρέσκο ψωμί;", "Βεβαίως, μόλις βγήκε από τον φούρνο και είναι ζεστό.")],
    "he": [("איפה תחנת הרכבת?", "לך ישר ואחר כך שמאלה, בבקשה."), ("יש לחם טרי?", "כן, הוא יצא עכשיו מהתנור והוא עדיין חם.")],
    "ar": [("أين تقع محطة القطار؟", "اذهب مباشرة ثم انعطف يسارا من فضلك."), ("هل لديكم خبز طازج؟", "نعم، خرج من الفرن الآن وهو ما زال ساخنا.")],
    "th": [("สถานีรถไฟอยู่ที่ไหน", "ตรงไปแล้วเลี้ยวซ้ายครับ"), ("มีขนมปังสดไหม", "มีครับ เพิ่งออกจากเตา ยังร้อนอยู่เลย")],
    "zh": [("你好，今天天气怎么样？", "今天天气很好，适合出去散步。"), ("请问车站在哪里？", "一直走，然后左转，不远，走五分钟就到了。")],
    "zh-tw": [("你好，請問車站在哪裡？", "直走以後左轉就到了，不遠。"), ("還有新鮮的麵包嗎？", "有，剛剛從烤箱拿出來，還是熱的。")],
    "ja": [("こんにちは、駅はどこですか？", "まっすぐ行って、左に曲がってください。"), ("焼きたてのパンはありますか？", "はい、今オーブンから出したところです。まだ温かいですよ。")],
    "ko": [("안녕하세요, 역은 어디에 있어요?", "똑바로 가다가 왼쪽으로 도세요."), ("갓 구운 빵이 있나요?", "네, 방금 오븐에서 나와서 아직 따뜻합니다.")],
}  # fmt: skip
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
