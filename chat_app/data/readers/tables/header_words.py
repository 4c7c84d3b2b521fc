"""Vocabularies in ten languages: the meaning of column names, and the roles of speakers by their names."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

from chat_app.conversation import Role

# "user" and "assistant" are columns of turns if both are present; "dialog" is an id or a list; "id" may be a row's id.
Meaning = Literal[
    "context", "reply", "user", "assistant", "system", "dialog", "id", "speaker", "text", "time", "split", "turn",
    "parent", "rank", "label", "rejected",
]  # fmt: skip

LONGEST_NAME = 64
NUMBER_AT_END = re.compile(r"^(.*?) ?([0-9]{1,4})$")
LOWER_UPPER = re.compile(r"(?<=[a-z])(?=[A-Z])")
ONE_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+|[a-z]+(?:[A-Z][a-z0-9]+)+")

_NAMES: dict[Meaning, str] = {
    "context": """
        context question prompt input instruction source query request q history post inquiry
        frage kontext eingabe anfrage anweisung; contexte entrée requête invite consigne; pregunta contexto entrada
        consulta instrucción; pergunta instrução; domanda contesto richiesta istruzione; vraag invoer opdracht;
        вопрос контекст запрос инструкция; 问题 問題 提问 上下文 输入 指令 问; 質問 文脈 入力 指示
    """,
    "reply": """
        reply response answer completion output target a chosen
        antwort ausgabe erwiderung; réponse reponse sortie; respuesta salida; resposta saída; risposta; antwoord
        uitvoer; ответ вывод; 回答 答案 回复 回覆 输出 答; 返答 答え 応答 出力 返信
    """,
    "system": """
        system persona system+prompt system+message system+text systemprompt
        systemtext; système; sistema; systeem; система; 系统 系统提示; システム
    """,
    "dialog": """
        conversation dialog dialogue chat thread session ticket case messages turns utterances dialogs
        gespräch unterhaltung dialoge; fil discussion; conversación conversacion diálogo hilo; conversa;
        conversazione dialogo; gesprek dialoog; диалог разговор беседа; 对话 會話 会话 對話; 会話 対話
    """,
    "id": "id uid uuid key row index idx no nr number num # nummer numéro número numero номер 编号 序号 番号",
    "speaker": """
        speaker role author sender from who name participant username nickname handle
        sprecher rolle absender autor; locuteur rôle expéditeur auteur; hablante rol remitente; falante papel
        remetente; parlante ruolo mittente autore; spreker afzender auteur; говорящий роль автор отправитель;
        说话人 角色 发送者 说话者; 話者 役割 送信者 発言者
    """,
    "text": """
        text message content utterance body msg value line sentence statement
        nachricht inhalt äußerung; texte contenu; texto mensaje contenido; mensagem conteúdo; testo messaggio
        contenuto; tekst bericht inhoud; текст сообщение реплика; 文本 消息 内容 信息; テキスト メッセージ 本文 発話
        発言
    """,
    "time": """
        time timestamp date datetime created sent order sequence seq position step created+at sent+at create+time
        zeit datum uhrzeit zeitpunkt zeitstempel reihenfolge; heure horodatage ordre; fecha hora orden; data ordem;
        ora ordine; tijd tijdstip volgorde; время дата порядок; 时间 日期 顺序; 時間 日時 日付 順番
    """,
    "split": "split subset partition fold set part aufteilung partición divisão 划分 分割",
    "turn": "turn runde tour turno beurt ход 轮次 ターン",
    "parent": """
        parent parent+id parent+message+id in+response+to in+response+to+id in+response+to+tweet+id
        in+response+to+status+id in+reply+to in+reply+to+id in+reply+to+tweet+id in+reply+to+status+id reply+to
        reply+to+id reply+to+message+id replied+to thread+ts responds+to response+to
    """,
    "rank": "rank",
    "label": "label is+correct correct is+answer kto+tag train+on weight",
    "rejected": "rejected rejected+text rejected+response loser",
}
# Of several columns with what is said to the bot, these come first, in this order; then any other; last, who says it.
_CONTEXT_ORDER = (
    "history verlauf historique historial histórico cronologia geschiedenis история 历史 歴史",
    "prompt",
    "instruction instructions anweisung consigne instrucción instrução istruzione opdracht инструкция 指令 指示",
    "context passage kontext contexte contexto contesto контекст 上下文 文脈",
    "input eingabe entrée entrada richiesta invoer 输入 入力",
    "query anfrage requête consulta запрос",
    "question frage pregunta pergunta domanda vraag вопрос 问题 問題 提问 質問",
)
_USERS = """
    user human customer client person patient student caller visitor guest seeker buyer consumer prompter usr inbound
    kunde nutzer benutzer; utilisateur; cliente usuario; usuário utilizador; utente; gebruiker klant;
    пользователь клиент; 用户 客户 顾客 使用者; ユーザー ユーザ お客様
"""
_ASSISTANTS = """
    assistant bot chatbot gpt chatgpt model ai agent support operator helper advisor representative rep staff service
    assistent berater kundendienst; conseiller; asistente agente soporte; assistente suporte; supporto; medewerker;
    ассистент бот помощник оператор поддержка; 助手 客服 机器人 助理; アシスタント ボット
"""
_SYSTEMS = "system developer"


def _split_words(text: str) -> frozenset[str]:
    return frozenset(word.replace("+", " ") for word in text.replace(";", " ").split())


# Suffixes that make a name an id, a position or a speaker: "conversation id", "turn number", "user name".
_IDS = _split_words("id ids uid idx index no nr number num nummer key code номер 编号 番号")
_SPEAKER_ENDS = _split_words("id idx name role type label")

_MEANT: list[tuple[Meaning, str]] = [("user", _USERS), ("assistant", _ASSISTANTS), *_NAMES.items()]
_SIDES: list[tuple[Role, str]] = [("user", _USERS), ("assistant", _ASSISTANTS), ("system", _SYSTEMS)]
MEANINGS = {word: meaning for meaning, names in _MEANT for word in _split_words(names)}
CONTEXT_RANKS = {word: rank for rank, names in enumerate(_CONTEXT_ORDER) for word in _split_words(names)}
ROLES = {word: role for role, names in _SIDES for word in _split_words(names)}


def normalize_name(name: str) -> str:
    """A normal form of names, in lower case with single spaces: "ConversationID_1" -> "conversation id 1"."""
    name = LOWER_UPPER.sub(" ", unicodedata.normalize("NFKC", name[: 2 * LONGEST_NAME]).replace("\ufeff", ""))
    return " ".join("".join(sign if sign.isalnum() or sign == "#" else " " for sign in name.casefold()).split())


def split_number(name: str) -> tuple[str, int | None]:
    """Split a normalized name into the name and the number at its end, if it has one."""
    found = NUMBER_AT_END.match(name)
    return (found[1], int(found[2])) if found and found[1] else (name, None)


def find_meaning(name: str) -> Meaning | None:
    """The meaning of a column by its name; None if it is unknown."""
    if len(name) > LONGEST_NAME:
        return None
    word = normalize_name(name)
    known = MEANINGS.get(word)
    if known:
        return known
    base, number = split_number(word)
    if number is not None:
        return _find_numbered_meaning(base)
    first, _, last = word.rpartition(" ")
    if first:
        return _find_pair_meaning(first, last)
    if word == "replies":
        return "reply"
    return MEANINGS.get(word.removesuffix("s"))


def _find_numbered_meaning(base: str) -> Meaning | None:
    """The meaning of a numbered column: a turn ("turn 1", "user 3") or half of a pair ("question 1", "answer 1")."""
    known = MEANINGS.get(base)
    if known in ("turn", "text", "speaker", "user", "assistant"):
        return "turn"
    return known if known in ("context", "reply") else None


def _find_pair_meaning(first: str, last: str) -> Meaning | None:
    before = find_meaning(first)
    if last in _SPEAKER_ENDS and before in ("speaker", "user", "assistant"):
        return "speaker"
    if last in _IDS:
        return {"dialog": "dialog", "turn": "time", "text": "time", "context": "id", "reply": "id"}.get(before or "")  # type: ignore[return-value]
    after = MEANINGS.get(last)
    if after in ("text", "context", "reply") and before in ("user", "assistant"):
        return before  # "customer message", "bot reply"
    if before == "system" and after in ("text", "context"):
        return "system"
    if after == "text" and before in ("context", "reply"):
        return before
    return after if after in ("text", "time", "context", "reply", "speaker") and before is None else None


def rank_context(name: str) -> int:
    """The place of a column among those with what is said to the bot: instruction, context, input, question."""
    return CONTEXT_RANKS.get(normalize_name(name), len(_CONTEXT_ORDER))


def is_weak_context(name: str) -> bool:
    """Whether a name means what is said to the bot only if no other column does: a source may also be a file."""
    return normalize_name(name) in ("source", "target", "post", "output")


def tells_side(name: str) -> bool:
    """Whether a column of true and false under this name tells whether a customer wrote a message."""
    return normalize_name(name) in ("inbound", "is inbound", "from customer", "is customer", "from user", "is user")


def find_role(speaker: str) -> Role | None:
    """The role of a speaker, by the whole name or by its last known word ("support agent 7"); None if it is unknown."""
    word = normalize_name(speaker)
    known = ROLES.get(word)
    if known or not word:
        return known
    return next((ROLES[part] for part in reversed(word.split()) if part in ROLES and part != "system"), None)


def is_identifier(name: str) -> bool:
    """Whether a cell is an identifier, which is not prose: "user_msg", "createdAt"."""
    return len(name) <= LONGEST_NAME and ONE_IDENTIFIER.fullmatch(name.strip()) is not None
