"""The documents name files, modules and commands that exist, and numbers that the code has."""

from __future__ import annotations

import argparse
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from chat_app._version import __version__
from chat_app.cli import _parser
from chat_app.server import openai_responses

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
COMMANDS_IN = (*DOCUMENTS, "README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
_ENDINGS = ("py", "md", "toml", "txt", "yml", "yaml", "js", "css")


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def quoted(document: str) -> set[str]:
    """What stands between single backticks, outside of blocks of code."""
    prose = re.sub(r"^```.*?^```", "", text_of(document), flags=re.DOTALL | re.MULTILINE)
    return set(re.findall(r"`([^`\n]+)`", prose))


def names_a_file(text: str) -> bool:
    return re.fullmatch(r"[\w./-]+", text) is not None and ("/" in text or text.rpartition(".")[2] in _ENDINGS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_named_exists(document: str) -> None:
    named = {text for text in quoted(document) if names_a_file(text) and not text.startswith("/")}
    folders = (ROOT, ROOT / "chat_app")
    assert not sorted(text for text in named if not any((folder / text).exists() for folder in folders))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", text_of(document))
    assert not [link for link in links if not (ROOT / link).exists()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_module_that_is_named_exists(document: str) -> None:
    modules = {text for text in quoted(document) if re.fullmatch(r"chat_app(\.\w+)+", text)}
    assert not [module for module in modules if find_spec(module) is None]


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_the_documents_name_files_at_all(document: str) -> None:
    assert sum(map(names_a_file, quoted(document))) > 5


def test_the_table_of_packages_is_whole() -> None:
    rows = "\n".join(line for line in text_of("ARCHITECTURE.md").splitlines() if line.startswith("|"))
    packages = {path.parent.name for path in (ROOT / "chat_app").glob("*/__init__.py")}
    assert not sorted(name for name in packages if f"`{name}/`" not in rows)


@pytest.mark.parametrize("document", COMMANDS_IN)
def test_every_command_that_is_named_exists(document: str) -> None:
    used = re.findall(r"(?:`|&& |python -m )chat_app (?!is ready)([a-z]+)\b", text_of(document))
    (subparsers,) = (one for one in _parser()._actions if isinstance(one, argparse._SubParsersAction))
    assert set(used) <= set(subparsers.choices)


def test_the_changelog_tells_of_this_version() -> None:
    heads = re.findall(r"^## \[(.+?)\]", text_of("CHANGELOG.md"), re.MULTILINE)
    assert heads[0] == "Unreleased"
    assert __version__ in heads


def test_the_readme_tells_how_often_an_event_is_sent() -> None:
    (milliseconds,) = re.findall(r"A streamed event has what was written in (\d+) ms", text_of("README.md"))
    assert int(milliseconds) == round(1000 * openai_responses.FLUSH_SECONDS)
