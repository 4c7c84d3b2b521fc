"""YAML -> lists, objects and texts, with the line of each. Safe: nothing is constructed, and every scalar stays a text.

`- no` is the word no, not False. Tags mean nothing, references (&, *) are refused, and depth and count are limited, so
that a few lines cannot grow out of all measure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from chat_app.data.readers.text_source import Source
from chat_app.errors import DataError
from chat_app.formatting import format_bytes

MAX_BYTES = 50_000_000
MAX_DEPTH = 50
MAX_VALUES = 5_000_000


class YamlText(str):
    """A scalar, with the line on which it stands."""

    line: int = 0


class YamlList(list[Any]):
    """A sequence, with the line on which it begins."""

    line: int = 0


class YamlMap(dict[str, Any]):
    """A mapping, with the line on which it begins."""

    line: int = 0


def parse_yaml(source: Source) -> Any:
    """The first document of a file; None if it is empty.

    Raises:
        DataError: it is no YAML, too large, too deep, or uses references.
    """
    size = source.path.stat().st_size
    if size > MAX_BYTES:
        limit = format_bytes(MAX_BYTES)
        raise DataError(f"This YAML file has more than {limit}.", where=source.name, advice="Give it in parts.")
    text = b"".join(source.read_chunks()).decode("utf-8", "replace")
    try:
        return _build(iter(yaml.parse(text, Loader=_choose_loader())), source.name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source.name}, line {mark.line + 1}" if mark else source.name
        raise DataError(
            f"This file is not YAML ({error.problem or 'it cannot be parsed'}).",
            where=where,
            advice="Check the indentation, the colons and the quotes there.",
        ) from error
    except yaml.YAMLError as error:
        raise DataError(
            "This file holds characters that YAML does not allow.", where=source.name, advice="Delete them."
        ) from error


def _choose_loader() -> Any:
    """libyaml's parser where PyYAML was built with it; only events are taken from it."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class _Open:
    """A list or an object whose end is not reached; of an object also the key that waits for its value."""

    value: YamlList | YamlMap
    key: str | None = None


@dataclass(slots=True)
class _Builder:
    """Puts values where they belong. No recursion: the depth of a file is not that of the program."""

    file: str
    stack: list[_Open] = field(default_factory=list)
    count: int = 0
    root: Any = None

    def add(self, value: YamlText | YamlList | YamlMap, line: int) -> None:
        value.line = line
        self.count += 1
        if self.count > MAX_VALUES or len(self.stack) > MAX_DEPTH:
            what = "too many levels" if len(self.stack) > MAX_DEPTH else "too much"
            raise DataError(f"This YAML file holds {what}.", where=f"{self.file}, line {line}", advice="Split it.")
        if not self.stack:
            self.root = value
            return
        top = self.stack[-1]
        if isinstance(top.value, YamlList):
            top.value.append(value)
        elif top.key is None:
            # A key that is itself a list or an object names nothing here; its place is kept.
            top.key = str(value) if isinstance(value, YamlText) else f"?{line}"
        else:
            top.value.setdefault(top.key, value)
            top.key = None


def _build(events: Iterator[Any], file: str) -> Any:
    builder = _Builder(file)
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise DataError(
                "This YAML file uses references (& and *), which are not followed.",
                where=f"{file}, line {line}",
                advice="Write the texts there again instead.",
            )
        if isinstance(event, yaml.ScalarEvent):
            builder.add(YamlText(event.value), line)
        elif isinstance(event, yaml.CollectionStartEvent):
            value: YamlList | YamlMap = YamlList() if isinstance(event, yaml.SequenceStartEvent) else YamlMap()
            builder.add(value, line)
            builder.stack.append(_Open(value))
        elif isinstance(event, yaml.CollectionEndEvent):
            builder.stack.pop()
        elif isinstance(event, yaml.DocumentEndEvent):
            break
    return builder.root
