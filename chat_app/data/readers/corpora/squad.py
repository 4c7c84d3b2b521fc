"""SQuAD and sets of its layout -> a passage with a question, and the answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chat_app.data.readers.json.document import parse_document
from chat_app.data.readers.json.items import looks_like_json
from chat_app.data.readers.protocol import InputFile, TextReader
from chat_app.data.readers.turn_text import build_answered, build_unanswered, replace_unstorable
from chat_app.data.readers.types import Located, Problem, RejectedError


@dataclass(frozen=True)
class SquadReader(TextReader):
    """Reads articles with paragraphs, and questions about each."""

    kind = "squad"
    articles: tuple[Any, ...]

    @classmethod
    def sniff(cls, file: InputFile) -> SquadReader | None:
        """A reader if the file is JSON with articles, paragraphs and questions."""
        if not looks_like_json(file) or '"paragraphs"' not in file.beginning:
            return None
        value = parse_document(file)
        articles = value.get("data") if isinstance(value, dict) else value
        if not isinstance(articles, list) or not any(_list_paragraphs(article) for article in articles[:5]):
            return None
        return cls(file.source, file.options, tuple(articles))

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The questions; their line is their number in the file."""
        number = unanswerable = 0
        for article in self.articles:
            for paragraph in _list_paragraphs(article):
                for item in paragraph["qas"]:
                    number += 1
                    try:
                        found = _build(paragraph.get("context"), item, need_reply)
                        if found is None:
                            unanswerable += 1
                        else:
                            yield Located(found, number, self.source.name)
                    except RejectedError as rejected:
                        yield Problem(self.source.name, number, rejected.reason, rejected.advice)
        if unanswerable:
            questions = "1 question has" if unanswerable == 1 else f"{unanswerable:,} questions have"
            yield Problem(self.source.name, None, f"{questions} no answer in the text.", "Nothing has to be done.")


def _list_paragraphs(article: Any) -> list[dict[str, Any]]:
    paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
    found = paragraphs if isinstance(paragraphs, list) else []
    return [one for one in found if isinstance(one, dict) and isinstance(one.get("qas"), list)]


def _build(context: Any, item: Any, need_reply: bool) -> Any:
    """The conversation of one question; None if it is known to have no answer."""
    question = item.get("question") if isinstance(item, dict) else None
    if not isinstance(question, str) or not question.strip():
        raise RejectedError("This item has no question.", 'Write it under "question".')
    passage = replace_unstorable(context).strip() if isinstance(context, str) else ""
    asked = f"{passage}\n{replace_unstorable(question).strip()}" if passage else replace_unstorable(question)
    answers = item.get("answers") or ([item["answer"]] if isinstance(item.get("answer"), dict) else [])
    texts = [one["text"] for one in answers if isinstance(one, dict) and isinstance(one.get("text"), str)]
    texts = [replace_unstorable(text) for text in texts if text.strip()]
    if item.get("is_impossible") is True or not texts:
        return None if need_reply else build_unanswered([asked])
    return build_answered([asked], texts[0])
