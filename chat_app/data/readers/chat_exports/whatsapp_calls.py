"""What WhatsApp writes for calls ("Voice call, 3 min") and for pictures that can be seen once, in several languages."""

from __future__ import annotations

import re

LONGEST_CALL = 120
CALLS = (
    "voice call|video call|group call|audio call|sprachanruf|videoanruf|gruppenanruf|llamada|llamada de voz"
    "|videollamada"
    "|appel vocal|appel vidéo|appel audio|chiamata vocale|videochiamata|ligação de voz|ligação de vídeo|chamada de voz"
    "|chamada de vídeo|spraakoproep|video-oproep|audio-oproep|аудиозвонок|видеозвонок|sesli arama|görüntülü arama"
    "|połączenie głosowe|połączenie wideo|panggilan suara|panggilan video|röstsamtal|videosamtal|taleopkald|videoopkald"
    "|音声通話|ビデオ通話|음성 ?통화|영상 ?통화|语音通话|视频通话|語音通話|視訊通話"
)
BEFORE = "missed|silenced|verpasster?|stummgeschalteter?|perdida|manqué|persa|perdida|gemiste|пропущенный|cevapsız"
AFTER = "perdida|manqué|persa|perdido|senza risposta|가 부재중|不在着信"
CALL = re.compile(
    rf"(?:(?:{BEFORE}) )?(?:{CALLS})(?: (?:{AFTER}))?[,，、] ?"
    r"(?:\d{1,3}\s?[^\W\d_]{1,10}\.?(?:[ ,]{1,2}\d{1,2}\s?[^\W\d_]{1,10}\.?){0,2}|\d{1,2}(?::\d{2}){1,2}"
    r"|(?:no answer|tap to call back|focus mode|answered on (?:an)?other device|declined|call failed|\d+ joined"
    r"|keine antwort|zum zurückrufen tippen|(?:an|auf) einem anderen gerät .{1,30}|sin respuesta|toca para .{1,30}"
    r"|aucune réponse|touchez pour .{1,30}|nessuna risposta|tocca per .{1,30}|sem resposta|não atendida"
    r"|toque para .{1,30}|geen antwoord|tik om .{1,30}|нет ответа|нажмите, .{1,40}|cevap yok|yanıt yok))\.?",
    re.IGNORECASE,
)
MISSED = re.compile(rf"(?:{BEFORE}) (?:{CALLS})|(?:{CALLS}) (?:{AFTER})", re.IGNORECASE)
THING = (
    r"(?:photo|video|voice message|audio|image|picture|message|foto|bild|sprachnachricht|mensaje de voz|vídeo|vidéo)"
)
VIEW_ONCE = re.compile(
    rf"view(?:ed)? once {THING}(?: omitted)?|{THING} \(?view once\)?(?: omitted)?"
    r"|you (?:sent|received) a view once message\..*"
    rf"|{THING}[ -](?:zum einmaligen ansehen|für die einmalansicht|mit einmalansicht)"
    rf"|einmal(?:ig)? ansehbare[sr]? {THING}|einmalansicht[ :-]{{1,3}}{THING}"
    rf"|{THING} (?:de|para) (?:ver una vez|una sola vez)"
    rf"|{THING} de (?:visualización única|visualização única)"
    rf"|(?:{THING}|message vocal) à vue unique|(?:{THING}|messaggio vocale) visualizzabile una volta",
    re.IGNORECASE,
)


# This runs for each message: the first word decides before the patterns are tried.
FIRST_WORDS = frozenset(
    re.findall(r"[^\W\d_-]+", f"{CALLS} {BEFORE} {THING} view viewed you einmal einmalig einmalansicht".lower())
)
UNSPACED = ("通話", "通话", "통화")


def is_call_or_view_once(line: str) -> bool:
    """Whether WhatsApp wrote a line for a call, or for what could be seen once."""
    first = line.lstrip().split(" ", 1)[0].rstrip(",.").lower()
    if first.partition("-")[0] not in FIRST_WORDS and not any(word in first for word in UNSPACED):
        return False
    line = line.strip(" .\u202f\xa0")
    return bool(CALL.fullmatch(line) or MISSED.fullmatch(line) or VIEW_ONCE.fullmatch(line))
