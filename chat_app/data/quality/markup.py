"""Markup left inside texts: special tokens spelled out, template markers, HTML entities and tags."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

MAX_ROUNDS = 8

_SPELLINGS = (
    r"<[|｜][\w ▁.:\-]{1,40}[|｜]>"
    r"|</?s>|</?(?:bos|eos|pad|unk|sep|cls|mask|sp[12]|start_of_turn|end_of_turn)>|<<?/?SYS>>?"
    r"|\[/?(?:INST|SEP|CLS|PAD|MASK|UNK|BOS|EOS)\]|__eo[ut]__"
    r"|(?:^|(?<=\s))\#{2,4} ?(?:Human|Assistant|Instruction|Response|System|User|Input|Bot) ?:"
    r"|^\#{2,4} ?(?:Human|Assistant|Instruction|Response)[ \t]*$"
)
_SPECIAL_TOKEN = re.compile(_SPELLINGS, re.IGNORECASE | re.MULTILINE)
_SPACED_TOKENS = re.compile(f" {{0,8}}(?:{_SPELLINGS})+ {{0,8}}", re.IGNORECASE | re.MULTILINE)
_TAGS = (
    "a|abbr|article|b|blockquote|body|br|button|caption|center|cite|code|div|em|font|footer|form|h[1-6]|head|header|hr|"
    "html|i|iframe|img|input|label|li|link|main|meta|nav|ol|option|p|pre|script|section|select|small|span|strike|"
    "strong|style|sub|sup|svg|table|tbody|td|textarea|tfoot|th|thead|title|tr|u|ul|video"
)
_ENTITY = r"&(?:amp;)*(?:[a-zA-Z][a-zA-Z0-9]{1,31}|\#[0-9]{1,7}|\#[xX][0-9a-fA-F]{1,6});"
_TAG = rf"</?(?:{_TAGS})(?:\s[^<>]{{0,500}})?/?>|<!--[^<>]{{0,500}}-->"
_HTML = re.compile(f"{_ENTITY}|{_TAG}", re.IGNORECASE)
_NEW_LINE = re.compile(r"<(?:br|/p|/div|/li|/tr|/h[1-6])\b", re.IGNORECASE)
_AMP = re.compile("&(?:amp;)+")


def may_hold_markup(text: str) -> bool:
    """A cheap test that most texts fail: False only if there is neither a special token nor HTML."""
    return "<" in text or "&" in text or "[" in text or "##" in text or "__" in text


def find_special_tokens(text: str) -> list[tuple[int, int]]:
    """(start, end) of each special token or template marker that is spelled out."""
    return [match.span() for match in _SPECIAL_TOKEN.finditer(text)]


def find_html(text: str) -> list[tuple[int, int]]:
    """(start, end) of each HTML entity, tag or comment."""
    return [match.span() for match in _HTML.finditer(text) if _replace_html(match) != match[0]]


def remove_special_tokens(text: str) -> str:
    """The text with each spelled special token replaced by a space."""
    return repeat_until_stable(text, lambda one: _SPACED_TOKENS.sub(" ", one))


def remove_html(text: str) -> str:
    """The text without tags and with entities decoded; tags that break a line become line feeds."""
    return repeat_until_stable(text, lambda one: _HTML.sub(_replace_html, one) if find_html(one) else one)


def repeat_until_stable(text: str, step: Callable[[str], str]) -> str:
    """Apply a step until it changes nothing: a removal may join the characters around it into another match.

    A text that still changes after eight rounds was crafted to do so, and becomes empty.
    """
    for _ in range(MAX_ROUNDS):
        changed = step(text)
        if changed == text:
            return text
        text = changed.strip()
    return "" if step(text) != text else text


def _replace_html(match: re.Match[str]) -> str:
    found = match[0]
    if found[0] == "&":
        return html.unescape(_AMP.sub("&", found)) if html.unescape(found) != found else found
    return "\n" if _NEW_LINE.match(found) else ""
