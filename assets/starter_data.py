"""Write the conversations from which the starter model is made, as JSON lines.

    python assets/starter_data.py OUT [CORPORA]

OUT gets `learn/` (a file for each source, to learn the language from), `finish.jsonl` (to learn last: how a chat with
the starter sounds) and `heldout/` (never learned, only measured: one conversation in twenty of each source). CORPORA is
a folder with `self_dialogue.jsonl.gz` and `topical_chat.jsonl.gz`, a list of turns a line; without it the model learns
from the rest. The conversations come from

    chitchat-dataset (MIT) and chatterbot-corpus (BSD), packages of requirements-dev.txt
    the Self-dialogue Corpus (BSD 3-clause) and Topical-Chat (CDLA-Sharing 1.0), in CORPORA
    `small_talk.jsonl.gz` and `starter_openings.tsv`, written for this project (CC0)
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

# Questions about the program that the corpus was written for; a model must not learn another one's name and maker.
DIALOGUES = ("conversations", "greetings")
QUESTIONS = ("food", "humor", "emotion", "health", "sports", "movies", "literature")
TOPIC_SHARE = 4
# The last lesson: small talk and the openings several times, among a share of the other conversations.
SMALL_TALK_TIMES, OPENING_TIMES = 6, 2
CHITCHAT_SHARE, SELF_DIALOGUE_SHARE = 5, 12
EARLIER, EARLIER_TURNS = 800, 4
OPENINGS = Path(__file__).with_name("starter_openings.tsv")
SMALL_TALK = Path(__file__).with_name("small_talk.jsonl.gz")
# A kind bot does not learn these. A conversation in which one occurs is left out.
UNFIT = re.compile(
    r"\b(f+u+c+k\w*|shit\w*|bitch\w*|cunt\w*|nigg\w*|fag(?:got)?s?|whore\w*|slut\w*|porn\w*|rape[ds]?|rapist|"
    r"kill (?:your|my)self|suicid\w*|blow ?jobs?|dildo\w*|masturbat\w*|retard(?:ed|s)?|nazis?)\b",
    re.IGNORECASE,
)


def is_held_out(key: str) -> bool:
    """Whether a conversation is kept for measuring: one in twenty, by the SHA-1 of its key in chitchat-dataset, or of
    its line in another corpus."""
    return int(hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest(), 16) % 20 == 0


def chitchat(always_topic: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and conversation. Consecutive messages of one turn are joined by a space.

    One in four of the conversations about a given topic has the topic as its system text, so that the model learns what
    a system text is for (with `always_topic` all of them have it); the held-out ones have none.
    """
    from chitchat_dataset import Dataset

    for key, conversation in Dataset().items():
        turns = [" ".join(message["text"] for message in turn) for turn in conversation["messages"]]
        turns = [turn.strip() for turn in turns if turn.strip()]
        if not turns:
            continue
        record: dict[str, Any] = {"turns": turns}
        topic = conversation.get("prompt")
        if topic and not is_held_out(key) and (always_topic or int(key[:8], 16) % TOPIC_SHARE == 0):
            record["system"] = f"Let us talk about this: {topic}"
        yield key, record


def chatterbot() -> Iterator[dict[str, Any]]:
    """English small talk. In most topics a list is a question and its possible answers: a conversation each."""
    package = importlib.util.find_spec("chatterbot_corpus")
    if package is None or package.origin is None:
        raise SystemExit("Install chatterbot-corpus first: pip install -r requirements-dev.txt")
    for topic in (*DIALOGUES, *QUESTIONS):
        path = Path(package.origin).parent / "data" / "english" / f"{topic}.yml"
        for turns in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
            said = [str(turn).strip() for turn in turns]
            if topic in DIALOGUES:
                yield {"turns": [turn for turn in said if turn]}
            else:
                yield from ({"turns": [said[0], answer]} for answer in said[1:] if said[0] and answer)


def read_corpus(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Line and conversation of a file of CORPORA, or of the small talk."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in map(str.strip, lines):
            record = json.loads(line)
            yield line, {"turns": record} if isinstance(record, list) else record


def is_fit(record: dict[str, Any]) -> bool:
    """Whether there is nothing in a conversation that a kind bot should not say."""
    texts = record.get("turns") or [message["content"] for message in record["messages"]]
    return not any(UNFIT.search(text) for text in texts)


def sources(corpora: Path | None) -> Iterator[tuple[str, Iterator[tuple[str, dict[str, Any]]]]]:
    """Each source with its name: key and conversation, those to be held out too."""
    yield "chitchat", chitchat()
    yield "chatterbot", (("", record) for record in chatterbot())  # None is held out: it is too little to measure on.
    yield "small_talk", read_corpus(SMALL_TALK)
    if corpora is not None:
        for name in ("self_dialogue", "topical_chat"):
            yield name, read_corpus(corpora / f"{name}.jsonl.gz")


def is_learned(key: str, record: dict[str, Any]) -> bool:
    """Whether the model may see a conversation: it is not kept for measuring, and fit."""
    return not is_held_out(key) and is_fit(record)


def finish(corpora: Path | None = None) -> Iterator[dict[str, Any]]:
    """The last lesson. A topic that both speakers were shown is always told, so that nothing is answered out of the
    blue."""
    for key, record in read_corpus(SMALL_TALK):
        if is_learned(key, record):
            yield from [record] * SMALL_TALK_TIMES
    for line in OPENINGS.read_text(encoding="utf-8").splitlines()[1:]:
        yield from [{"turns": line.split("\t")}] * OPENING_TIMES
    for key, record in chitchat(always_topic=True):
        if int(key[9:13], 16) % CHITCHAT_SHARE == 0 and is_learned(key, record):
            yield record
    if corpora is not None:
        found = read_corpus(corpora / "self_dialogue.jsonl.gz")
        yield from islice((record for key, record in found if is_learned(key, record)), 0, None, SELF_DIALOGUE_SHARE)


def earlier() -> Iterator[dict[str, Any]]:
    """A sample of the last lesson that comes with the product: the openings, and a few turns of other conversations. It
    is mixed in where corrections are taught, so that the rest is not forgotten."""
    found = list({json.dumps(record): record for record in finish()}.values())
    openings = [record for record in found if len(record.get("turns", ())) == 2]
    others = [record for record in found if len(record.get("turns", ())) != 2]
    yield from openings
    every = max(-(-len(others) // EARLIER), 1)
    for number, record in enumerate(others[::every]):
        name = "turns" if "turns" in record else "messages"
        told = record[name][:1] if name == "messages" and record[name][0]["role"] == "system" else []
        said = record[name][len(told) :]
        spare = max(len(said) - EARLIER_TURNS, 0)
        start = 2 * (number % (spare // 2 + 1))
        yield {**record, name: told + said[start : start + EARLIER_TURNS]}


def write(records: Iterator[dict[str, Any]], file: Path) -> None:
    """One conversation a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", encoding="utf-8") as target:
        for record in records:
            print(json.dumps(record, ensure_ascii=False), file=target)


def main(out: Path, corpora: Path | None = None) -> None:
    """Write all files, and the sample beside the starter."""
    write(earlier(), Path(__file__).with_name("starter_earlier.jsonl"))
    for name, conversations in sources(corpora):
        found = list(conversations)
        write((record for key, record in found if is_learned(key, record)), out / "learn" / f"{name}.jsonl")
        if held_out := [record for key, record in found if is_held_out(key)]:
            write(iter(held_out), out / "heldout" / f"{name}.jsonl")
    write(finish(corpora), out / "finish.jsonl")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
