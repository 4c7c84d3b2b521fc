"""Write the conversations from which the starter model is made, as JSON lines.

    python assets/starter_data.py OUT

OUT gets `chitchat.jsonl` and `chatterbot.jsonl` (to learn the language from), `finish.jsonl` (to learn last: how a chat
begins) and `heldout.jsonl` (never learned, only measured). The conversations come from two packages, chitchat-dataset
(MIT) and chatterbot-corpus (BSD), and from `starter_openings.tsv`, which was written for this project (CC0).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

# Questions about the program that the corpus was written for; a model must not learn another one's name and maker.
DIALOGUES = ("conversations", "greetings")
QUESTIONS = ("food", "humor", "emotion", "health", "sports", "movies", "literature")
TOPIC_SHARE = 4
# The last lesson: the openings several times, among one in four of the conversations.
OPENING_TIMES, CHITCHAT_SHARE = 4, 4
EARLIER, EARLIER_TURNS = 800, 4
OPENINGS = Path(__file__).with_name("starter_openings.tsv")


def is_held_out(key: str) -> bool:
    """Whether a conversation of chitchat-dataset is kept for measuring: one in twenty, by the SHA-1 of its key."""
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


def finish() -> Iterator[dict[str, Any]]:
    """The last lesson. A topic that both speakers were shown is always told, so that nobody is answered out of the
    blue."""
    for line in OPENINGS.read_text(encoding="utf-8").splitlines()[1:]:
        yield from [{"turns": line.split("\t")}] * OPENING_TIMES
    for key, record in chitchat(always_topic=True):
        if not is_held_out(key) and int(key[9:13], 16) % CHITCHAT_SHARE == 0:
            yield record


def earlier() -> Iterator[dict[str, Any]]:
    """A sample of the last lesson that comes with the product: the openings, and a few turns of other conversations. It
    is mixed in where corrections are taught, so that the rest is not forgotten."""
    found = list({json.dumps(record): record for record in finish()}.values())
    openings, others = (
        [record for record in found if (len(record["turns"]) == 2) is is_short] for is_short in (True, False)
    )
    yield from openings
    every = max(-(-len(others) // EARLIER), 1)
    for number, record in enumerate(others[::every]):
        spare = max(len(record["turns"]) - EARLIER_TURNS, 0)
        start = 2 * (number % (spare // 2 + 1))
        yield {**record, "turns": record["turns"][start : start + EARLIER_TURNS]}


def main(out: Path) -> None:
    """Write the four files, and the sample beside the starter."""
    out.mkdir(parents=True, exist_ok=True)
    with open(Path(__file__).with_name("starter_earlier.jsonl"), "w", encoding="utf-8") as file:
        for record in earlier():
            print(json.dumps(record, ensure_ascii=False), file=file)
    with ExitStack() as stack:
        names = ("chitchat", "heldout", "chatterbot", "finish")
        files = {name: stack.enter_context(open(out / f"{name}.jsonl", "w", encoding="utf-8")) for name in names}
        for key, record in chitchat():
            print(json.dumps(record, ensure_ascii=False), file=files["heldout" if is_held_out(key) else "chitchat"])
        for record in chatterbot():
            print(json.dumps(record, ensure_ascii=False), file=files["chatterbot"])
        for record in finish():
            print(json.dumps(record, ensure_ascii=False), file=files["finish"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
