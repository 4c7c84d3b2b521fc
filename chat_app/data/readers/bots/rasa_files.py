"""The files of a Rasa bot -> examples by intent, answers by name, and stories. Knows Rasa's YAML, Markdown and JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from chat_app.data.readers.protocol import InputFile
from chat_app.data.readers.text_source import Source
from chat_app.data.readers.yaml_values import parse_yaml

Layout = Literal["yaml", "markdown", "json"]

# A key, then lines with nothing but comments, then what stands below it.
BELOW = r":[ \t]*\r?\n\s*(?:#.*\n\s*)*"
YAML_START = re.compile(
    rf"(?m)^(?:nlu{BELOW}- ?(?:intent|synonym|regex|lookup)|(?:stories|rules){BELOW}- ?(?:story|rule):"
    rf"|(?:responses|templates){BELOW}['\"]?utter_|intents:[ \t]*(?:\r?\n\s*(?:#.*\n\s*)*- ?\w|\[))"
)
DOMAIN_MARK = re.compile(
    r"(?m)^(?:responses|templates|actions|entities|slots|forms|session_config|nlu|stories|rules|version):"
)
MARKDOWN_NLU = re.compile(r"(?m)^## ?(?:intent|synonym|regex|lookup):")
MARKDOWN_STORY = re.compile(
    r"(?m)^\* ?[\w/+]+(?:\{.*\})?[ \t]*\r?\n[ \t]*(?:<!--.*-->\s*)?- ?(?:utter_|action_|slot\{|form\{)\w*"
)
MARKDOWN_ANSWER = re.compile(r"(?m)^\* ?[\w]+/[\w]+[ \t]*\r?\n[ \t]*- ?(?!utter_|action_)\S")
# [Monday](day), [Monday](day:date), [Monday]{"entity": "day"}
ENTITY = re.compile(r"\[([^\[\]\n]{1,500})\](?:\([^()\n]{1,200}\)|\{[^{}\n]{1,500}\})")
INTENT_HEAD = re.compile(r"^## ?(intent|synonym|regex|lookup):\s*(.+?)\s*$")
ITEM = re.compile(r"^\s*[-*+]\s+(.*?)\s*$")
LAYOUT_LIMIT = 200_000


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a story: an intent or an action by its name, or a text that is said."""

    by_user: bool
    name: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """A story or a rule."""

    steps: tuple[Step, ...]
    line: int
    file: str


@dataclass
class RasaParts:
    """What has been found in the files of a bot; `places` says where an intent's examples stand: line and file."""

    examples: dict[str, list[str]] = field(default_factory=dict)
    answers: dict[str, list[str]] = field(default_factory=dict)
    stories: list[Story] = field(default_factory=list)
    places: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add_examples(self, intent: str, texts: Iterable[str], line: int, file: str) -> None:
        """Examples of what is said in an intent."""
        found = self.examples.setdefault(intent, [])
        self.places.setdefault(intent, (line, file))
        found += [text for one in texts if (text := ENTITY.sub(r"\1", one).strip()) and text not in found[-1:]]


def detect_layout(file: InputFile) -> Layout | None:
    """Which of Rasa's layouts a file has; None if none. Looks at its beginning only."""
    head = file.beginning
    start = head.lstrip()[:1]
    if start in ("{", "["):
        return "json" if '"rasa_nlu_data"' in head else None
    if start == "<":
        return None
    if YAML_START.search(head) and DOMAIN_MARK.search(head):
        return "yaml"
    is_markdown = MARKDOWN_NLU.search(head) or MARKDOWN_STORY.search(head) or MARKDOWN_ANSWER.search(head)
    return "markdown" if is_markdown else None


def collect(file: InputFile, parts: RasaParts) -> None:
    """Adds what a file holds.

    Raises:
        DataError: it is no valid YAML.
    """
    layout = detect_layout(file)
    if layout == "yaml":
        _collect_yaml(parse_yaml(file.source), parts, file.name)
    elif layout == "markdown":
        _collect_markdown(file.source, parts)
    elif layout == "json":
        _collect_json(file.source, parts)


def _collect_yaml(value: Any, parts: RasaParts, file: str) -> None:
    if not isinstance(value, dict):
        return
    for item in _list_maps(value.get("nlu")):
        if isinstance(item.get("intent"), str):
            parts.add_examples(str(item["intent"]), _split_examples(item.get("examples")), item.line, file)
    for key in ("responses", "templates"):
        answers = value.get(key)
        for name, items in answers.items() if isinstance(answers, dict) else ():
            texts = (
                [item if isinstance(item, str) else item.get("text") for item in items]
                if isinstance(items, list)
                else []
            )
            parts.answers.setdefault(name, []).extend(
                str(text).strip() for text in texts if isinstance(text, str) and text.strip()
            )
    for key in ("stories", "rules"):
        for item in _list_maps(value.get(key)):
            steps = tuple(step for one in _list_maps(item.get("steps")) if (step := _read_step(one)))
            parts.stories.append(Story(steps, item.line, file))


def _list_maps(value: Any) -> Iterator[Any]:
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict):
            yield item


def _split_examples(value: Any) -> Iterator[str]:
    """Examples are lines of a text that begin with a dash, or a list of such texts."""
    if isinstance(value, str):
        for line in value.splitlines():
            if match := ITEM.match(line):
                yield match[1]
    elif isinstance(value, list):
        for item in value:
            text = item.get("text") if isinstance(item, dict) else item
            if isinstance(text, str):
                lines = [match[1] for line in text.splitlines() if (match := ITEM.match(line))]
                yield from lines or [text]


def _read_step(step: dict[str, Any]) -> Step | None:
    """A step that says something; None for slots, checkpoints and what listens."""
    if "or" in step:
        first = next(_list_maps(step["or"]), None)
        return _read_step(first) if first is not None and "or" not in first else None
    if isinstance(step.get("user"), str):
        return Step(True, str(step.get("intent", "")), ENTITY.sub(r"\1", step["user"]).strip())
    if isinstance(step.get("intent"), str):
        return Step(True, step["intent"])
    if isinstance(step.get("bot"), str):
        return Step(False, "", step["bot"].strip())
    action = step.get("action")
    if isinstance(action, str) and action not in ("action_listen", "action_restart", "..."):
        return Step(False, action)
    return None


def _collect_markdown(source: Source, parts: RasaParts) -> None:
    """Rasa 1: intents as headings with lists, stories as headings with intents (*) and actions (-) below."""
    examples: list[str] | None = None
    intent, line_of = "", 0
    steps: list[Step] = []

    def close() -> None:
        if examples is not None and intent:
            parts.add_examples(intent, examples, line_of, source.name)
        texts = [step for step in steps if not step.by_user and not step.name]
        if steps and steps[0].by_user and texts and len(texts) == len(steps) - 1:
            parts.answers.setdefault(f"utter_{steps[0].name}", []).extend(step.text for step in texts)
        elif steps:
            parts.stories.append(Story(tuple(steps), line_of, source.name))

    for number, raw in source.read_lines():
        line = (raw or b"").decode("utf-8", "replace")
        if line.startswith("#"):
            close()
            head = INTENT_HEAD.match(line)
            intent, line_of, steps = (head[2] if head and head[1] == "intent" else ""), number, []
            examples = [] if head else None
        elif examples is not None and (item := ITEM.match(line)):
            examples.append(item[1])
        elif line.startswith("*"):
            name = re.split(r"[{\s]| OR ", line[1:].strip(), maxsplit=1)[0]
            steps.append(Step(True, name))
        elif (item := ITEM.match(line)) and steps:
            action = item[1].split("{")[0].strip()
            if re.fullmatch(r"(?:utter|action)_\w+(?:/\w+)?", action):
                steps.append(Step(False, action))
            elif not re.match(r"(?:slot|form|action_\w*)\{?", item[1]) and "/" in steps[0].name:
                steps.append(Step(False, "", item[1]))
    close()


def _collect_json(source: Source, parts: RasaParts) -> None:
    try:
        value = orjson.loads(b"".join(source.read_chunks()))
        items = value["rasa_nlu_data"]["common_examples"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return
    for number, item in enumerate(items if isinstance(items, list) else (), start=1):
        if isinstance(item, dict) and isinstance(item.get("text"), str) and isinstance(item.get("intent"), str):
            parts.add_examples(item["intent"], [item["text"]], number, source.name)
