"""AIML -> pairs of what is said and what is answered, as far as no program is needed to know it.

Taken are patterns without wildcards whose templates are text, one of several texts (random), or another pattern
(srai). What has to be computed or remembered (star, get, condition, that) is counted and passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chat_app.data.readers.bots.pairs import build_pair, pair_up
from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.turn_text import replace_unstorable
from chat_app.data.readers.types import Located, Preview, Problem
from chat_app.data.readers.xml_events import XmlEnd, XmlEvent, XmlStart, iterate_xml

WILDCARDS = frozenset("*_^#$")
# Tags whose content is shown as it stands; every other one needs a program.
SHOWN = frozenset(("b", "i", "u", "em", "strong", "a", "p", "ul", "ol", "font", "span", "html", "sentence"))
SILENT = frozenset(("think", "learn", "learnf", "system", "javascript", "gossip", "oob", "delay", "image", "video"))
MOST_STEPS = 10
MOST_CATEGORIES = 1_000_000


@dataclass
class Category:
    """A pattern and its answers; `same_as` is another pattern whose answers they are."""

    line: int
    pattern: str = ""
    answers: list[str] = field(default_factory=list)
    same_as: str = ""
    plain: bool = True


@dataclass(frozen=True)
class AimlReader:
    """Reads AIML."""

    path: Path
    name: str

    @classmethod
    def sniff(cls, file: InputFile) -> AimlReader | None:
        """A reader if the file is XML whose root is AIML's."""
        head = file.beginning.lstrip()
        return cls(file.path, file.name) if head.startswith("<") and "<aiml" in head else None

    def preview(self) -> Preview:
        """The kind."""
        return Preview(self.name, "aiml", "utf-8")

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The pairs, each at the line of its category."""
        categories = list(read_categories(iterate_xml(self.path, self.name)))
        known: dict[str, Category] = {}
        for category in categories:
            known.setdefault(normalize(category.pattern), category)
        passed = 0
        for category in categories:
            answers = _find_answers(category, known)
            if not answers or WILDCARDS & set(category.pattern):
                passed += 1
                continue
            for question, answer in pair_up([category.pattern], answers):
                yield Located(
                    build_pair(replace_unstorable(question), replace_unstorable(answer)), category.line, self.name
                )
        if passed:
            what = "1 category needs" if passed == 1 else f"{passed:,} categories need"
            yield Problem(
                self.name,
                None,
                f"{what} a program to be answered (wildcards, variables, that).",
                "Nothing has to be done.",
            )


def read_categories(events: Iterator[XmlEvent]) -> Iterator[Category]:
    """The categories of a file in their order."""
    reader = _CategoryReader()
    count = 0
    for event in events:
        done = reader.take(event)
        if done is not None:
            count += 1
            if count > MOST_CATEGORIES:
                return
            yield done


def normalize(pattern: str) -> str:
    """A pattern as patterns are compared: in capitals, without signs."""
    return " ".join("".join(sign if sign.isalnum() or sign in WILDCARDS else " " for sign in pattern.upper()).split())


class _CategoryReader:
    """Builds categories while elements go by."""

    def __init__(self) -> None:
        self._open: Category | None = None
        self._path: list[str] = []
        self._texts: list[str] = []
        self._random: list[list[str]] = []

    def take(self, event: XmlEvent) -> Category | None:
        """Takes an element in; gives the category that ends with it."""
        if isinstance(event, XmlStart):
            self._start(event)
        elif isinstance(event, XmlEnd):
            return self._end(event.name)
        elif self._open is not None and not SILENT & set(self._path):
            self._texts.append(event.text)
        return None

    def _start(self, event: XmlStart) -> None:
        name = event.name.lower()
        category = self._open
        if name == "category":
            self._open, self._path, self._texts, self._random = Category(event.line), [], [], []
            return
        if category is None:
            return
        if SILENT & set(self._path):
            self._path.append(name)
            return
        if name in ("pattern", "template", "srai", "li"):
            if name == "li" and (not self._random or event.attributes):
                category.plain = False
            if name == "srai" and ("".join(self._texts).strip() or "li" in self._path):
                category.plain = False
            self._texts = []
        elif name == "random":
            # Text around a choice belongs to each of its answers: it is rare, and needs no guess to be left out.
            category.plain = category.plain and not self._random and not "".join(self._texts).strip()
            self._random.append([])
        elif name == "br":
            self._texts.append("\n")
        elif name not in SHOWN and name not in SILENT:
            category.plain = False
        self._path.append(name)

    def _end(self, raw: str) -> Category | None:
        name, category = raw.lower(), self._open
        if category is None:
            return None
        if name == "category":
            self._open = None
            return category
        if self._path and self._path[-1] == name:
            self._path.pop()
        text = _join_lines("".join(self._texts))
        if name == "pattern":
            category.pattern = " ".join(text.split())
        elif name == "srai":
            category.same_as = text
            self._texts = []
        elif name == "li" and self._random:
            self._random[-1] += [text] if text else []
            self._texts = []
        elif name == "template":
            if text and (self._random or category.same_as):
                category.plain = False
            category.answers = [*(self._random[0] if self._random else []), *([text] if text else [])]
        return None


def _join_lines(text: str) -> str:
    """A text without the indentation of its file; each of its lines with single spaces."""
    return "\n".join(line for one in text.split("\n") if (line := " ".join(one.split())))


def _find_answers(category: Category, known: dict[str, Category]) -> list[str]:
    """The answers, also those of the pattern that it refers to; none if a program is needed."""
    for _ in range(MOST_STEPS):
        if not category.plain:
            return []
        if not category.same_as:
            return category.answers
        target = known.get(normalize(category.same_as))
        if target is None:
            return []
        category = target
    return []
