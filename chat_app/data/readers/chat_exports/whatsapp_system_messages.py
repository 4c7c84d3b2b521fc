"""Placeholders and notices that WhatsApp writes into exports, in many languages, and their removal from messages."""

from __future__ import annotations

import re

from chat_app.data.readers.chat_exports.whatsapp_calls import LONGEST_CALL, is_call_or_view_once

DIRECTION_MARKS = re.compile("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff]")

# Nouns x words for "omitted", as an iPhone combines them: "image omitted", "Bild weggelassen".
LEFT_OUT = (
    ("image video audio sticker gif document media|contact card|voice message|video note|live photo", "omitted"),
    ("bild video audio sticker gif dokument kontaktkarte medien|videonachricht|sprachnachricht",
     "weggelassen ausgelassen ausgeschlossen"),
    ("imagen video audio sticker gif documento multimedia archivo|tarjeta de contacto|videomensaje|nota de video",
     "omitido omitida omitidos"),
    ("imagem vídeo video áudio audio figurinha sticker gif documento mídia multimédia ficheiro|cartão do contato|"
     "cartão de contacto|arquivo de mídia|mensagem de vídeo",
     "omitido omitida oculto oculta ocultado ocultada ocultados|não revelado|não revelada"),
    ("image vidéo audio sticker gif document médias|fiche contact|message vidéo",
     "absent absente omis omise manquant manquante retiré retirée"),
    ("immagine video audio sticker gif documento media|scheda contatto|videomessaggio",
     "omesso omessa omessi esclusa escluso|non incluso|non inclusa"),
    ("afbeelding video audio sticker gif document media contactkaart videobericht", "weggelaten"),
    ("изображение видео аудио аудиофайл стикер gif документ|карточка контакта|видеосообщение",
     "отсутствует пропущено опущено|не включено"),
    ("görüntü video ses çıkartma gif belge medya|kişi kartı|video notu", "|dahil edilmedi"),
    ("gambar video audio stiker gif dokumen media|kartu kontak|catatan video", "|tidak disertakan"),
    ("obraz wideo film audio naklejka gif dokument multimedia|wizytówka kontaktu", "pominięto pominięta pominięty"),
    ("bild video ljud ljudklipp klistermärke gif dokument media|kontaktkort", "utelämnad utelämnat utelämnades"),
    ("画像 動画 音声 ビデオ ステッカー スタンプ gif 文書 ドキュメント メディア 連絡先カード",
     "は含まれていません は省略されました を除く"),
    ("图像 图片 视频 视频文件 音频 贴图 gif 文档 多媒体文件 圖片 影片 音訊 貼圖 文件 多媒體檔 名片 联系人名片",
     "已忽略 已省略 已略去 忽略 省略"),
    ("사진 동영상 오디오 스티커 gif 문서 미디어|연락처 카드", "생략됨|생략되었습니다|제외됨"),
)  # fmt: skip

# Whole messages, in each language, without full stops and angle brackets.
WHOLE = """
null
без медиафайлов
pominięto multimedia
udeladt media
media ikke inkludert
utelatt media
utelämnad media
media jätetty pois
média vynechána
média vynechané
fișier media omis
médiafájl kihagyva
δεν συμπεριλήφθηκαν πολυμέσα
تم استبعاد الوسائط
الصورة محذوفة
המדיה לא נכללה
رسانه پیوست نشده است
मीडिया शामिल नहीं है
मीडिया के बिना
media file tidak disertakan
đã bỏ qua file phương tiện
忽略多媒體檔
省略多媒体文件
忽略多媒体文件
미디어 파일을 제외한 내보내기
this message was deleted
you deleted this message
message deleted
diese nachricht wurde gelöscht
du hast diese nachricht gelöscht
se eliminó este mensaje
eliminaste este mensaje
este mensaje fue eliminado
este mensaje se eliminó
mensagem apagada
esta mensagem foi apagada
você apagou esta mensagem
apagou esta mensagem
ce message a été supprimé
vous avez supprimé ce message
questo messaggio è stato eliminato
hai eliminato questo messaggio
dit bericht is verwijderd
dit bericht werd verwijderd
u hebt dit bericht verwijderd
je hebt dit bericht verwijderd
данное сообщение удалено
это сообщение удалено
вы удалили данное сообщение
вы удалили это сообщение
сообщение удалено
bu mesaj silindi
bu mesajı sildiniz
pesan ini telah dihapus
pesan ini dihapus
anda menghapus pesan ini
anda telah menghapus pesan ini
ta wiadomość została usunięta
usunięto tę wiadomość
ten wpis został usunięty
det här meddelandet raderades
du raderade det här meddelandet
denne besked blev slettet
denne meldingen ble slettet
tämä viesti poistettiin
poistit tämän viestin
tato zpráva byla odstraněna
acest mesaj a fost șters
αυτό το μήνυμα διαγράφηκε
تم حذف هذه الرسالة
لقد حذفت هذه الرسالة
ההודעה הזו נמחקה
ההודעה נמחקה
מחקת הודעה זו
این پیام حذف شد
यह संदेश मिटाया गया
यह मैसेज मिटा दिया गया
यह मैसेज मिटाया गया
आपने यह मैसेज मिटाया
このメッセージは削除されました
あなたはこのメッセージを削除しました
此消息已删除
您已删除此消息
你已删除此消息
这条消息已被删除
此訊息已刪除
您已刪除此訊息
삭제된 메시지입니다
이 메시지는 삭제되었습니다
missed voice call
missed video call
verpasster sprachanruf
verpasster videoanruf
llamada perdida
videollamada perdida
llamada de voz perdida
chamada de voz perdida
chamada de vídeo perdida
appel vocal manqué
appel vidéo manqué
chiamata vocale persa
videochiamata persa
gemiste spraakoproep
gemiste video-oproep
пропущенный аудиозвонок
пропущенный видеозвонок
live location shared
live-standort wird geteilt
"""

# "(file attached)", after the name of a file.
ATTACHED = (
    "file attached|Datei angehängt|archivo adjunto|arquivo anexado|ficheiro anexado|fichier joint|file allegato|"
    "bestand bijgevoegd|файл добавлен|файл прикреплен|файл прикреплён|dosya ekli|file terlampir|plik dołączony|"
    "załączono plik|bifogad fil|vedhæftet fil|vedlagt fil|liite|soubor přiložen|fișier atașat|ملف مرفق|הקובץ צורף|"
    "קובץ מצורף|फ़ाइल संलग्न|फ़ाइल अटैच की गई|ファイル添付|添付ファイル|文件附件|檔案已附加|附件|파일 첨부됨|첨부 파일"
)
EDITED = (
    "this message was edited|edited|diese nachricht wurde bearbeitet|bearbeitet|se editó este mensaje|editado|"
    "mensaje editado|mensagem editada|esta mensagem foi editada|editada|ce message a été modifié|modifié|"
    "questo messaggio è stato modificato|modificato|dit bericht is bewerkt|bewerkt|сообщение изменено|изменено|"
    "данное сообщение изменено|bu mesaj düzenlendi|düzenlendi|pesan ini diedit|diedit|edytowano|"
    "ta wiadomość została edytowana|redigerat|redigeret|تم تعديل هذه الرسالة|עודכן|ההודעה נערכה|"
    "यह मैसेज एडिट किया गया|編集済み|このメッセージは編集されました|已编辑|此消息已编辑|已編輯|此訊息已編輯|수정됨"
)
EDIT_MARK = re.compile(rf"(?:<(?:{EDITED})\.?>|\((?:{EDITED})\))\Z", re.IGNORECASE)
LONGEST_EDIT_MARK = 60
# An exported file: IMG-20231231-WA0001.jpg (file attached), <attached: 00001-PHOTO.jpg>; and an omitted document:
# paper.pdf • 3 pages document omitted.
FILE_LINE = re.compile(
    rf"(?:[^\n]{{1,200}}\.\w{{1,6}} \((?:{ATTACHED})\)"
    r"|(?:IMG|VID|AUD|PTT|STK|DOC|GIF)-\d{8}-WA\d{4,}\.\w{2,5}(?: \([^()\n]{3,40}\))?)\s*",
    re.IGNORECASE,
)
FILE_IN_BRACKETS = re.compile(r"<[^\W\d_][\w \u0300-\u036f\u0900-\u097f]{1,30}\s?[:：]\s?[^<>\n]{1,200}\.\w{1,6}>")
FILE_NAME_END = re.compile(r"[^\s.]\.\w{1,6}\Z")
LONGEST_DOCUMENT = 300
DOCUMENT = re.compile(r"[^\n]{1,200}\.\w{1,6} • ")
POLL = re.compile(
    r"(?:POLL|UMFRAGE|ENCUESTA|ENQUETE|SONDAGE|SONDAGGIO|POLL-?UMFRAGE|PEILING|ОПРОС|ANKET)\s?:\s*(?:\n|\Z)"
)
PLACE = re.compile(r"[^\n:]{0,40}: https://(?:maps\.google\.com|maps\.app\.goo\.gl|foursquare\.com)/\S*\Z")
WAITING = (
    "Waiting for this message", "Warte auf diese Nachricht", "Esperando el mensaje", "Aguardando mensagem",
    "En attente de ce message", "In attesa del messaggio", "Wachten op dit bericht", "Ожидание сообщения",
)  # fmt: skip

# What comes before a ": " that is part of a notice, not the end of an author: Anna changed the subject to "Party: now".
NOTICE = re.compile(
    r"https?://|[“”„«»「」\"]|end-to-end|ende-zu-ende|extremo a extremo|ponta a ponta|de bout en bout|end-to-end-|"
    r"сквозн|uçtan uca|从端到端|端到端|端對端|エンドツーエンド|종단|"
    r" (?:created|changed|added|removed|joined|left|invited|pinned|deleted|updated|turned o(?:n|ff)|started|set|"
    r"reset|blocked|unblocked|is now|are now|was added|were added|requested) .*"
    r"(?:group|subject|description|icon|settings|security|number|admin|message|call|link|to |community|you|timer)|"
    r" ha(?:t|st|ben) .*(?:gruppe|betreff|beschreibung|gruppenbild|erstellt|geändert|hinzugefügt|entfernt|verlassen)|"
    r" (?:cambió|cambiaste|creó|creaste|añadió|añadiste|agregó|eliminó|salió|se unió|actualizó) |"
    r" (?:mudou|alterou|criou|adicionou|removeu|saiu|entrou|atualizou|definiu) (?:[oa]s? |para |de |com |usando |\S+$)|"
    r" (?:a|avez|as) (?:changé|modifié|créé|ajouté|retiré|supprimé|rejoint|quitté|mis à jour) |"
    r" ha(?:i)? (?:cambiato|modificato|creato|aggiunto|rimosso|abbandonato|aggiornato) |"
    r" (?:heeft|hebt) .*(?:groep|onderwerp|beschrijving|toegevoegd|verwijderd|gewijzigd|gemaakt)|"
    r" (?:изменил|изменила|изменили|создал|создала|добавил|добавила|удалил|удалила|покинул|вышел|вышла)(?:\(-?а\))? |"
    r" (?:grubu|konuyu|açıklamayı|grup) .*(?:değiştirdi|oluşturdu|ekledi)|"
    r" (?:mengubah|membuat|menambahkan|mengeluarkan|keluar) |"
    r" (?:zmienił|zmieniła|utworzył|utworzyła|dodał|dodała|usunął|usunęła)|"
    r"更改了|创建了|建立了|已將|修改了|変更しました|作成しました|追加しました|변경|만들었습니다|추가했습니다|"
    r" (?:غيّر|غيَّر|غير|أنشأ|أضاف|قام) | (?:שינה|שינתה|יצר|יצרה|הוסיף|הוסיפה) | ने .*(?:बदल|बनाया|जोड़ा)",
    re.IGNORECASE,
)
# Notices to which an iPhone gives the group, or the person whom they are about, as the author.
NOTICE_TEXT = re.compile(
    r"(?=[^\n]{20,600}\Z)(?:.*(?:end-to-end encrypted|ende-zu-ende-verschlüsselt|cifrad[oa]s? de extremo a extremo|"
    r"criptografia de ponta a ponta|encriptad[oa]s ponto a ponto|chiffrés de bout en bout|crittografat[ei] end-to-end|"
    r"end-to-end versleuteld|защищены сквозным шифрованием|uçtan uca şifreli|enkripsi end-to-end|terenkripsi|"
    r"w pełni szyfrowane|端到端加密|端對端加密|エンドツーエンドで?暗号化|종단간 암호화|مشفرة تمامًا|"
    r"מוצפנות מקצה לקצה|एंड-टू-एंड एन्क्रिप्ट)|"
    r".*(?:this group|security code (?:with|changed)|diese gruppe (?:erstellt|verlassen)|sicherheitsnummer)"
    r".*(?:tap|tippe|created|joined|erstellt))",
    re.IGNORECASE,
)


def _list_omissions() -> frozenset[str]:
    """The placeholders in lower case: WHOLE, and each noun of LEFT_OUT with each word of its language."""
    found = {line for line in WHOLE.splitlines() if line}
    for things, words in LEFT_OUT:
        gap = "" if words.startswith(("は", "已")) else " "
        found |= {f"{thing}{gap}{word}" for thing in _split_words(things) for word in _split_words(words)}
    return frozenset(found)


def _split_words(words: str) -> list[str]:
    """Split an entry of LEFT_OUT: single words before the first bar, separated by spaces, and phrases after it."""
    single, *phrases = words.split("|")
    return [*single.split(), *phrases]


NOT_SAID = _list_omissions()
LAST_WORDS = frozenset(text.split()[-1] for text in NOT_SAID)
LONGEST_NOT_SAID = max(map(len, NOT_SAID)) + 4


def strip_system_text(text: str) -> str:
    """The text of a message without placeholders of WhatsApp; empty if it has nothing else."""
    if text[-1:] in (">", ")") and (edited := EDIT_MARK.search(text, max(0, len(text) - LONGEST_EDIT_MARK))):
        text = text[: edited.start()]
    if "<" in text and (":" in text or "：" in text):
        text = FILE_IN_BRACKETS.sub("", text)
    text = text.strip()
    first, newline, caption = text.partition("\n")
    if _is_written_by_whatsapp(first):
        return caption.strip()
    if newline and len(text) > len(first) and _is_left_out(text.rpartition("\n")[2]):
        return text.rpartition("\n")[0].strip()
    # This runs for each message, so cheap tests come before the patterns.
    if (first.endswith(":") and POLL.match(text)) or ("https://" in text and PLACE.match(text)):
        return ""
    return "" if text.startswith(WAITING) else text


def _is_written_by_whatsapp(line: str) -> bool:
    if _is_left_out(line) or ("." in line and ("(" in line or "-WA" in line) and FILE_LINE.fullmatch(line)):
        return True
    if len(line) <= LONGEST_CALL and is_call_or_view_once(line):
        return True
    if "•" in line and DOCUMENT.match(line):
        words = line.rpartition("• ")[2].split()  # "3 pages document omitted"
        return any(_is_left_out(" ".join(words[start:])) for start in range(min(len(words), 6)))
    return "." in line and len(line) <= LONGEST_DOCUMENT and _ends_with_document(line)


def _ends_with_document(line: str) -> bool:
    """Whether a line is the name of a file and the words for "document omitted", as for documents without pages."""
    words = line.split()
    if not words or words[-1].strip(" <>.。…").casefold() not in LAST_WORDS:
        return False
    return any(
        FILE_NAME_END.search(words[start - 1]) and _is_left_out(" ".join(words[start:]))
        for start in range(max(1, len(words) - 5), len(words))
    )


def _is_left_out(line: str) -> bool:
    return len(line) <= LONGEST_NOT_SAID and line.strip(" <>.。…").casefold() in NOT_SAID
