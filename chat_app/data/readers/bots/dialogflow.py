"""A Dialogflow agent -> pairs: an intent's file has the answers, another one beside it what people say.

The questions to a follow-up intent come after those of its parent, so its conversations begin with the parent's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from chat_app.conversation import Conversation
from chat_app.data.readers.bots.pairs import clean_texts, pair_up
from chat_app.data.readers.json.document import parse
from chat_app.data.readers.json.items import looks_like_json
from chat_app.data.readers.protocol import InputFile, JoinedReader, OpenedReader
from chat_app.data.readers.turn_text import replace_unstorable
from chat_app.data.readers.types import Located, Preview, Problem, quote_text
from chat_app.errors import DataError

USER_SAYS = re.compile(r"(.+?)_usersays_([A-Za-z-]{2,10})\.json")
TEXT_TYPES = (0, "0", "message", None)
MOST_PARENTS = 5


@dataclass
class Intent:
    """What is known of one intent in one language."""

    name: str
    said: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    id: str = ""
    parent: str = ""
    file: str = ""


class DialogflowReader(JoinedReader):
    """Reads the intents of a Dialogflow agent."""

    @classmethod
    def sniff(cls, file: InputFile) -> DialogflowReader | None:
        """A reader if the file begins as an intent or as what people say to one."""
        head = file.beginning
        if not looks_like_json(file):
            return None
        is_intent = '"responses"' in head and ('"affectedContexts"' in head or '"fallbackIntent"' in head)
        says = head.lstrip().startswith("[") and '"isTemplate"' in head and '"data"' in head
        return cls(file) if is_intent or says else None

    @classmethod
    def join(cls, files: Sequence[InputFile]) -> Sequence[OpenedReader]:
        """One reader of all intents."""
        intents: dict[tuple[str, str], Intent] = {}
        for file in files:
            _collect(parse(file.source), file.name, intents)
        first = files[0]
        name = first.name if len(files) == 1 else first.name.partition("/")[0]
        if not any(intent.said for intent in intents.values()):
            raise DataError(
                "This is an intent of Dialogflow without what people say to it.",
                where=name,
                advice="Give the whole archive of the agent: beside each intent lies a file ..._usersays_en.json.",
            )
        if not any(intent.answers for intent in intents.values()):
            raise DataError(
                "This is what people say to an intent of Dialogflow, without its answers.",
                where=name,
                advice="Give the whole archive of the agent.",
            )
        return [DialogflowAgent(name, first.source.encoding, list(intents.values()))]


@dataclass(frozen=True)
class DialogflowAgent:
    """A whole agent."""

    name: str
    encoding: str
    intents: list[Intent]

    def preview(self) -> Preview:
        """The kind."""
        return Preview(self.name, "dialogflow", self.encoding)

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The pairs of each intent, after the first pair of each of its parents."""
        by_id = {intent.id: intent for intent in self.intents if intent.id}
        for intent in self.intents:
            if intent.said and not intent.answers:
                reason = f"The intent {quote_text(intent.name)} is answered by a program."
                yield Problem(intent.file, None, reason, "Nothing has to be done.")
            before = _list_before(intent, by_id)
            for question, answer in pair_up(intent.said, intent.answers):
                turns = [replace_unstorable(text) for text in (*before, question, answer)]
                yield Located(Conversation.from_turns(turns), 1, intent.file)


def _list_before(intent: Intent, by_id: dict[str, Intent]) -> list[str]:
    turns: list[str] = []
    at = by_id.get(intent.parent)
    for _ in range(MOST_PARENTS):
        if at is None or not at.said or not at.answers:
            break
        turns = [at.said[0], at.answers[0], *turns]
        at = by_id.get(at.parent)
    return turns


def _collect(value: Any, file: str, intents: dict[tuple[str, str], Intent]) -> None:
    base = file.rpartition("/")[2]
    if isinstance(value, list):
        match = USER_SAYS.fullmatch(base)
        name = match[1] if match else base.removesuffix(".json")
        for item in value:
            if isinstance(item, dict):
                language = str(item.get("lang") or (match[2] if match else ""))
                intent = intents.setdefault((name, language), Intent(name, file=file))
                intent.said += clean_texts(_join_data(item.get("data")))
        return
    if not isinstance(value, dict):
        return
    name = base.removesuffix(".json")
    responses = value.get("responses")
    for response in responses if isinstance(responses, list) else ():
        messages = response.get("messages") if isinstance(response, dict) else None
        for message in messages if isinstance(messages, list) else ():
            if isinstance(message, dict) and message.get("type") in TEXT_TYPES:
                intent = intents.setdefault((name, str(message.get("lang") or "")), Intent(name, file=file))
                intent.answers += clean_texts(message.get("speech"))
    said = value.get("userSays")
    for item in said if isinstance(said, list) else ():
        if isinstance(item, dict):
            language = next((lang for known, lang in intents if known == name), "")
            intents.setdefault((name, language), Intent(name, file=file)).said += clean_texts(
                _join_data(item.get("data"))
            )
    for (known, _), intent in intents.items():
        if known == name:
            intent.id, intent.parent = str(value.get("id") or ""), str(value.get("parentId") or "")
            intent.name, intent.file = str(value.get("name") or name), file


def _join_data(data: Any) -> str:
    """A sentence from its pieces; those that stand for something (a date, a number) have their example's text."""
    pieces = data if isinstance(data, list) else []
    return "".join(str(piece.get("text") or "") for piece in pieces if isinstance(piece, dict))
