"""Subtitles and captions (.srt, .vtt) -> what is said in them.

Where they name the speakers (<v Anna>, "Anna: ..."), that is a chat of these people. Where nobody is named, each text
is taken for the answer to the one before; a sentence that goes on in the next caption is one text, two dashes are two,
and a long silence ends the conversation. Sounds, music and marks of style are passed over.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from chat_app.conversation import Conversation
from chat_app.data.readers.chat_exports.chat_reader import ChatReader
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.protocol import InputFile, OpenedReader, TextReader
from chat_app.data.readers.text_source import Source
from chat_app.data.readers.turn_text import MAX_TURNS, replace_unstorable
from chat_app.data.readers.types import Located, Problem

TIMES = re.compile(
    r"\s*((?:\d{1,3}:)?\d{1,2}:\d{2}[.,]\d{1,3})\s*-->\s*((?:\d{1,3}:)?\d{1,2}:\d{2}[.,]\d{1,3})(?:\s.*)?"
)
HEADS = re.compile(
    r"WEBVTT\b|\s*\d{1,6}[ \t]*\r?\n[ \t]*\d{1,3}:\d{2}:\d{2}[,.]\d{1,3}\s?-->"
    r"|\s*(?:\d{1,3}:)?\d{1,2}:\d{2}[.,]\d{3}\s?-->"
)
VOICE = re.compile(r"<v(?:\.[\w.-]+)?\s+([^<>]{1,80})>")
NUMBERED_VOICE = re.compile(r"\d{1,6} \"([^\"]{1,80})\" \(\d{1,12}\)")
NAMED = re.compile(r"(?:>>\s?)?([^\W\d_][^:\n<>\[\](){}.?!]{0,39}):\s+(\S.*)", re.DOTALL)
TAG = re.compile(r"</?[a-zA-Z0-9][^<>]{0,200}>|\{\\[^{}]{1,60}\}")
SOUND = re.compile(r"\[[^\[\]\n]{1,200}\]|\([A-Z][A-Z .,'-]{1,80}\)|[♪♫][^♪♫\n]*[♪♫]|^[♪♫].*", re.MULTILINE)
DASH = re.compile(r"^\s*[-–—‐]\s?(?=\S)")
ENDS = (".", "!", "?", "…", '"', "”", "»", "。", "！", "？", "♪", ":", ")", "]", "|", "؟", "।")
SILENCE_SECONDS = 10.0
NAMED_SHARE = 0.3
FEWEST = 2


@dataclass(frozen=True, slots=True)
class Caption:
    """What is shown at once: its line in the file, when it begins and ends in seconds, who speaks if it says so."""

    line: int
    start: float
    end: float
    speaker: str
    text: str


class SubtitlesReader(TextReader):
    """Reads subtitles without speakers."""

    kind = "subtitles"

    @classmethod
    def sniff(cls, file: InputFile) -> OpenedReader | None:
        """A reader if the file begins as subtitles do; one of a chat if they name who speaks."""
        if not HEADS.match(file.beginning):
            return None
        source = file.source
        names = _find_names(source)
        if len(names) < FEWEST:
            return cls(source, file.options)
        read = partial(read_messages, source, names)
        return ChatReader.survey("subtitles", file.name, source.encoding, file.options, read)

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations between two long silences, each at the line of its first caption."""
        turns: list[Caption] = []
        for turn in _iterate_turns(self.source):
            if turns and (turn.start - turns[-1].end > SILENCE_SECONDS or len(turns) >= MAX_TURNS):
                yield from self._build(turns, need_reply)
                turns = []
            turns.append(turn)
        yield from self._build(turns, need_reply)

    def _build(self, turns: list[Caption], need_reply: bool) -> Iterator[Located]:
        if len(turns) >= (FEWEST if need_reply else 1):
            yield Located(Conversation.from_turns([turn.text for turn in turns]), turns[0].line, self.source.name)


def iterate_captions(source: Source) -> Iterator[Caption]:
    """The captions of a file, without marks of style; a line that was shown before already is left out."""
    head: tuple[int, float, float] | None = None
    before, numbered, shown = "", "", ""
    texts: list[str] = []
    for number, raw in source.read_lines():
        line = (raw or b"").decode("utf-8", "replace").rstrip()
        if match := TIMES.fullmatch(line):
            if head is not None:
                caption = _build_caption(
                    head, numbered, texts[:-1] if texts and texts[-1].strip().isdecimal() else texts, shown
                )
                shown = texts[-1] if texts else shown
                yield from caption
            found = NUMBERED_VOICE.fullmatch(before.strip())
            numbered = found[1] if found else ""
            head, texts = (number, _to_seconds(match[1]), _to_seconds(match[2])), []
        elif not line.strip():
            if head is not None:
                yield from _build_caption(head, numbered, texts, shown)
                shown = texts[-1] if texts else shown
            head, texts = None, []
        elif head is not None:
            texts.append(line)
        before = line
    if head is not None:
        yield from _build_caption(head, numbered, texts, shown)


def read_messages(source: Source, names: frozenset[str]) -> Iterator[ChatMessage | Problem]:
    """The captions as messages; one that names nobody goes on with the one before."""
    speaker = ""
    for caption in iterate_captions(source):
        own, text = _split_name(caption, names)
        speaker = own or speaker
        if speaker and text:
            yield ChatMessage(caption.start, speaker, replace_unstorable(" ".join(text.split())), caption.line)


def _build_caption(head: tuple[int, float, float], numbered: str, texts: list[str], shown: str) -> Iterator[Caption]:
    """The caption, if something is said in it."""
    if texts and shown and texts[0].strip() == shown.strip():
        texts = texts[1:]  # captions that roll up show the last line again
    whole = "\n".join(texts)
    voice = VOICE.search(whole)
    text = html.unescape(SOUND.sub("", TAG.sub("", whole))).strip()
    if text and any(sign.isalnum() for sign in text):
        yield Caption(*head, " ".join(voice[1].split()) if voice else numbered, text)


def _find_names(source: Source) -> frozenset[str]:
    """Who is named in the captions; nobody if it is but a few of them."""
    voices: set[str] = set()
    counts: Counter[str] = Counter()
    total = 0
    for caption in iterate_captions(source):
        total += 1
        if caption.speaker:
            voices.add(caption.speaker)
        elif match := NAMED.fullmatch(caption.text):
            counts[match[1].strip()] += 1
    if voices:
        return frozenset(voices)
    again = frozenset(name for name, count in counts.items() if count >= FEWEST or counts.total() == total)
    return again if sum(counts[name] for name in again) >= NAMED_SHARE * total else frozenset()


def _split_name(caption: Caption, names: frozenset[str]) -> tuple[str, str]:
    if caption.speaker:
        return caption.speaker, caption.text
    match = NAMED.fullmatch(caption.text)
    return (match[1].strip(), match[2]) if match and match[1].strip() in names else ("", caption.text)


def _iterate_turns(source: Source) -> Iterator[Caption]:
    """What is said by one person at a time, as far as captions tell."""
    open_turn: Caption | None = None
    for caption in iterate_captions(source):
        for text, begins in _split_dashes(caption.text):
            text = replace_unstorable(text)
            goes_on = open_turn is not None and not begins and not open_turn.text.endswith(ENDS)
            if open_turn is not None and goes_on and caption.start - open_turn.end <= SILENCE_SECONDS:
                open_turn = Caption(open_turn.line, open_turn.start, caption.end, "", f"{open_turn.text} {text}")
                continue
            if open_turn is not None:
                yield open_turn
            open_turn = Caption(caption.line, caption.start, caption.end, "", text)
    if open_turn is not None:
        yield open_turn


def _split_dashes(text: str) -> Iterator[tuple[str, bool]]:
    """The texts of one caption, and whether each surely begins somebody's: two lines with dashes are two people."""
    lines = text.split("\n")
    if sum(DASH.match(line) is not None for line in lines) < FEWEST:
        yield " ".join(DASH.sub("", text).split()), False
        return
    pieces: list[str] = []
    for line in lines:
        if DASH.match(line) or not pieces:
            pieces.append(DASH.sub("", line))
        else:
            pieces[-1] += f" {line}"
    for piece in pieces:
        if piece.strip():
            yield " ".join(piece.split()), True


def _to_seconds(stamp: str) -> float:
    *hours, minutes, seconds = stamp.replace(",", ".").split(":")
    return 3600.0 * int(hours[0] if hours else 0) + 60 * int(minutes) + float(seconds)
