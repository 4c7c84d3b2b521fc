"""intents.json, as tutorials on chatbots have it: what people say in an intent ("patterns"), and what is answered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chat_app.data.readers.bots.pairs import build_pair, clean_texts, pair_up
from chat_app.data.readers.json.document import parse_document
from chat_app.data.readers.json.items import looks_like_json
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.turn_text import replace_unstorable
from chat_app.data.readers.types import Located, Problem, quote_text

CONTAINERS = ("intents", "data", "ourIntents", "intent_list")
NAME_KEYS = ("tag", "intent", "name", "intent_name", "label")
PATTERN_KEYS = ("patterns", "pattern", "text", "texts", "utterances", "examples", "questions", "inputs")
ANSWER_KEYS = ("responses", "response", "answers", "replies")
NO_PATTERN = 'What it answers is not learned. Write what people say under "patterns", if anything.'
NO_ANSWER = 'Write what is answered under "responses".'


@dataclass(frozen=True)
class IntentsReader(TextReader):
    """Reads intents with patterns and responses."""

    kind = "intents"
    intents: tuple[Any, ...]

    @classmethod
    def sniff(cls, file: InputFile) -> IntentsReader | None:
        """A reader if the file is a list of intents, most of which have patterns and responses."""
        if not looks_like_json(file) or file.layout == "text":
            return None
        found = find_intents(parse_document(file))
        return cls(file.source, file.options, tuple(found)) if found else None

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The pairs of each intent, whose number is their line."""
        for number, intent in enumerate(self.intents, start=1):
            name = _find_name(intent)
            what = f"The intent {quote_text(name)}" if name else f"Intent {number:,}"
            questions, answers = _find_texts(intent, PATTERN_KEYS), _find_texts(intent, ANSWER_KEYS)
            if not questions:
                yield Problem(self.source.name, number, f"{what} has no patterns.", NO_PATTERN)
            elif not answers:
                yield Problem(self.source.name, number, f"{what} has no responses.", NO_ANSWER)
            for question, answer in pair_up(questions, answers):
                yield Located(build_pair(question, answer), number, self.source.name)


def find_intents(value: Any) -> list[Any] | None:
    """The list of intents in a parsed file; None if it has none."""
    if isinstance(value, dict):
        value = next((value[key] for key in CONTAINERS if isinstance(value.get(key), list)), None)
    if not isinstance(value, list) or not value:
        return None
    known = [
        item
        for item in value
        if isinstance(item, dict)
        and any(_holds_texts(item.get(key)) for key in (*ANSWER_KEYS, *PATTERN_KEYS))
        and any(_may_hold_texts(item.get(key)) for key in ANSWER_KEYS)
        and any(_may_hold_texts(item.get(key)) for key in PATTERN_KEYS)
        and any(isinstance(item.get(key), str | list) for key in NAME_KEYS)
    ]
    return value if 2 * len(known) > len(value) else None


def _find_name(intent: Any) -> str:
    names = (intent.get(key) for key in NAME_KEYS) if isinstance(intent, dict) else ()
    return next((name for name in names if isinstance(name, str)), "")


def _holds_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _may_hold_texts(value: Any) -> bool:
    return isinstance(value, str) or _holds_texts(value)


def _find_texts(intent: Any, keys: tuple[str, ...]) -> list[str]:
    if not isinstance(intent, dict):
        return []
    values: Any = next((intent[key] for key in keys if intent.get(key)), [])
    return [replace_unstorable(text) for text in clean_texts(values)]
