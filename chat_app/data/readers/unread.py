"""Files of known programs that hold no talk, or hold it in a form that is not read: what they are, and what to do.

They are told by what stands at their beginning, and each is named once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.types import Located, Problem
from chat_app.errors import DataError

LOOKED_AT = 4_096


class Unread(NamedTuple):
    """A kind of file: a pattern of its beginning, what it is, and what to give instead."""

    pattern: re.Pattern[str]
    what: str
    advice: str


def _json(*keys: str, listed: bool | None = None) -> re.Pattern[str]:
    """An object, or a list of them, with these keys in any order."""
    start = r"\s*(?:\[\s*)?\{" if listed is None else r"\s*\[\s*\{" if listed else r"\s*\{"
    return re.compile(start + "".join(rf'(?=.*"{key}"\s*:)' for key in keys), re.DOTALL)


CHATGPT = "Give conversations.json of the export, or the whole archive."
CLAUDE = CHATGPT
FACEBOOK = "Give the folder messages of the export, or the whole archive; the chats are message_1.json and so on."
RASA = "Give the folder with nlu.yml, stories.yml or rules.yml, and domain.yml."
AS_JSON = "Export the chat again, as JSON."

CORNELL = "Give movie_lines.txt and movie_conversations.txt together."
DIALOGFLOW = "Give the whole archive of the agent."
ONLY_OWN = "This is Discord's package of your own data: nobody answers in it."
DISCORD = "Export a channel with DiscordChatExporter, as JSON."
CARD = "Give a chat with the character: in SillyTavern the .jsonl of its folder chats."
OF_FACEBOOK = (
    r"[a-z_]{3,60}_v[23]|profile_user|relationships_\w+|likes_\w+|saved_saved_media|story_activities_\w+|searches_\w+"
)


def _web_page(*words: str) -> re.Pattern[str]:
    """A page in which one of these words stands."""
    return re.compile(rf"(?is)\s*<(?:!doctype )?html(?=.*(?:{'|'.join(words)}))")


KINDS: tuple[Unread, ...] = (
    Unread(
        re.compile(r'\s*\{\s*"id":\s*"user-[^"]*",\s*"email"'),
        "This is the account in a ChatGPT export, no chat.",
        CHATGPT,
    ),
    Unread(
        _json("conversation_id", "rating", listed=True), "These are ratings in a ChatGPT export, no chats.", CHATGPT
    ),
    Unread(_json("conversation_id", "is_anonymous", listed=True), "This is ChatGPT's list of shared chats.", CHATGPT),
    Unread(_json("uuid", "full_name", "email_address"), "This is the account in a Claude export, no chat.", CLAUDE),
    Unread(_json("uuid", "is_private", "prompt_template"), "These are projects in a Claude export, no chats.", CLAUDE),
    Unread(
        re.compile(r'\s*\[?\s*\{\s*"conversations_memory"'), "This is the memory in a Claude export, no chat.", CLAUDE
    ),
    Unread(
        re.compile(rf'\s*\{{\s*"(?:{OF_FACEBOOK})"\s*:'),
        "This is a file of a Facebook or Instagram export, and no chat.",
        FACEBOOK,
    ),
    Unread(_json("ID", "Timestamp", "Contents"), ONLY_OWN, DISCORD),
    Unread(re.compile(r"ID,Timestamp,Contents,Attachments\b"), ONLY_OWN, DISCORD),
    Unread(_json("spec", "spec_version", "data", listed=False), "This is a character card, no chat.", CARD),
    Unread(
        re.compile(
            r"(?:(?:recipe|language|assistant_id|version):.*\n|[ \t]*#.*\n|[ \t]*\n)*"
            r"(?:pipeline|policies):[ \t]*(?:#.*)?\n"
        ),
        "This is the configuration of a Rasa bot, no talk.",
        RASA,
    ),
    Unread(
        re.compile(r"m\d+ \+\+\+\$\+\+\+ [^+\n]{1,200} \+\+\+\$\+\+\+ \d{4}"),
        "This is Cornell's list of films.",
        CORNELL,
    ),
    Unread(
        re.compile(
            r"u\d+ \+\+\+\$\+\+\+ [^+\n]{1,200} \+\+\+\$\+\+\+ m\d+ \+\+\+\$\+\+\+ [^+\n]{0,200}\+\+\+\$\+\+\+ [?mf]",
            re.I,
        ),
        "This is Cornell's list of characters, no talk.",
        CORNELL,
    ),
    Unread(
        _json("service_name", "intents", "slots", listed=True),
        "This is the schema of Schema-Guided Dialogue, no talk.",
        "Give the files dialogues_001.json and so on.",
    ),
    Unread(
        _json("isEnum", "isOverridable", listed=False), "This is an entity of a Dialogflow agent, no talk.", DIALOGFLOW
    ),
    Unread(
        _json("defaultMinConfidence", listed=False),
        "These are the settings of a Dialogflow agent, no talk.",
        DIALOGFLOW,
    ),
    Unread(_web_page("chatgpt data export", "jsonData"), "This is ChatGPT's export as a web page.", CHATGPT),
    Unread(
        _web_page("<title>Exported Data", "page_body chat_page"),
        "This is a Telegram export as a web page.",
        'Export it again and choose "Machine-readable JSON".',
    ),
    Unread(_web_page("chatlog__", "DiscordChatExporter"), "This is a Discord export as a web page.", AS_JSON),
    Unread(
        _web_page("_a6-g", "_3-95", "fbcdn", "<title>(?:Facebook|Instagram|Messenger)"),
        "This is a Facebook or Instagram export as a web page.",
        "Ask for the export again, and choose the format JSON.",
    ),
)


class UnreadReader:
    """Recognises known files without talk; it reads none."""

    @classmethod
    def sniff(cls, file: InputFile) -> UnreadReader | None:
        """Never a reader.

        Raises:
            DataError: the file is one of those; it says which, and what to give instead.
        """
        head = file.beginning[:LOOKED_AT]
        for kind in KINDS:
            if kind.pattern.match(head):
                raise DataError(kind.what, where=file.name, advice=kind.advice)
        return None

    def preview(self) -> NoReturn:
        """There is none."""
        raise NotImplementedError

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """Nothing."""
        raise NotImplementedError
