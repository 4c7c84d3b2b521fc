"""Small sets of questions and answers: what is kept aside of them, the wordings they are taught in, and for how long.

- A tenth of so few conversations would be missed, and choosing a model by so few is chance: 162 conversations about a
  library ended with the model of step 38 of 190, which had learned 66 of them. So all is read to the end, the learning
  rate falls to zero, and the last model is the result. Only a few wordings are kept aside, of replies that the model
  learns from other wordings; of a tiny set not even those.
- Each conversation is learned as it is and in further wordings of what the user says (`chat_app.data.augmentation`).
  They are written when the run is prepared, so that a resumed run learns the same rows.
"""

from __future__ import annotations

import math
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from chat_app.config.training import TrainConfig
from chat_app.conversation import Conversation
from chat_app.data.augmentation import UserNoise
from chat_app.data.readers import ConversationSource, has_text, iterate_conversations
from chat_app.data.splitting import hash_conversation
from chat_app.data.writers import write_jsonl
from chat_app.runs.run import Run

VARIANTS = "variants"  # The name of the file of further wordings, without its ending.
MOST = 300  # Conversations of a small set.
TINY = 60  # Below this number nothing is kept aside.
MOST_TURNS, SHORT_SHARE = 6, 0.8  # Questions and answers: this share of the conversations has at most so many turns.
WORDINGS_ASIDE, FEWEST_ASIDE, WORDINGS_OF_A_REPLY = 12, 6, 3
WORDINGS = 3  # Of each conversation, the given one included.
READ_AGAIN = 1.2  # How often a conversation is read for each epoch: the wordings differ, so it can be more often.
LEAST_READ, MOST_READ = 1_000, 6.0  # Readings in a training with the default epochs; times for each epoch.
EVALUATIONS = 6
ABOUT = "small_set"


@dataclass(frozen=True, slots=True)
class SmallSet:
    """How a small set is learned; kept in the run's facts.

    Attributes:
        wordings: rows that are written for each conversation, the one as it is included.
        read: how often a conversation is read in one of the epochs of the settings.
        keep_last: whether the last model is the result, whatever the rows kept aside say.
    """

    wordings: int
    read: float
    keep_last: bool


def find_small_set(config: TrainConfig, source: ConversationSource) -> list[Conversation] | None:
    """The conversations to learn, if they are to be taught in several wordings; else None."""
    if config.wordings == "off" or config.learn != "replies":
        return None
    found = (item.conversation for item in source.iterate_located() if item.part == "train")
    if config.wordings == "on":
        return list(found)
    conversations = list(islice(found, MOST + 1))
    return conversations if 0 < len(conversations) <= MOST and _are_questions(conversations) else None


def _are_questions(conversations: Sequence[Conversation]) -> bool:
    """Whether most are short exchanges that the user begins."""
    short = sum(len(one.turns) <= MOST_TURNS and one.turns[0].role == "user" for one in conversations)
    return short >= SHORT_SHARE * len(conversations)


def suited_valid_share(config: TrainConfig) -> float:
    """The share of whole conversations of a small set to keep aside: none, unless a share was chosen."""
    return 0.0 if config.valid_share == TrainConfig().valid_share else config.valid_share


def write_small_set(run: Run, config: TrainConfig) -> Counter[str]:
    """Keep wordings aside, write further ones of the rest, and note in the run's facts how the set is learned.

    Args:
        run: whose conversations are written already; if some are for validation, no others are kept aside.

    Returns:
        By how much the numbers of conversations of the parts change.
    """
    is_tested = has_text(run.data / "valid.jsonl")
    moved = 0
    if not is_tested and config.valid_share > 0:
        moved = keep_wordings_aside(run.data, config.seed)
    conversations = list(iterate_conversations(run.data / "train.jsonl"))
    least = LEAST_READ / (TrainConfig().epochs * max(len(conversations), 1))
    small = SmallSet(WORDINGS, min(max(READ_AGAIN, least), MOST_READ), keep_last=not is_tested)
    write_variants(run.data, conversations, small.wordings, config.seed)
    run.note(**{ABOUT: asdict(small)})
    return Counter(train=-moved, valid=moved)


def write_variants(folder: Path, conversations: Sequence[Conversation], wordings: int, seed: int) -> None:
    """Write variants.jsonl: further wordings of each conversation, drawn from its content and the seed."""
    noise, rows = UserNoise(conversations), []
    for one in conversations:
        chance = random.Random(hash_conversation(one, seed))
        rows += [noise.reword(one, chance) for _ in range(1, wordings)]
    write_jsonl(rows, folder / f"{VARIANTS}.jsonl")


def keep_wordings_aside(folder: Path, seed: int) -> int:
    """Move a few conversations of train.jsonl to valid.jsonl: wordings whose reply is learned from others.

    Returns:
        The number of conversations moved; 0 where there would be too few to tell anything.
    """
    train = folder / "train.jsonl"
    conversations = list(iterate_conversations(train))
    chosen = choose_wordings(conversations, seed)
    if not chosen:
        return 0
    rest = train.with_name(".train.rest")
    moved = 0
    with train.open("rb") as lines, rest.open("wb") as learned, (folder / "valid.jsonl").open("wb") as aside:
        for line, one in zip(lines, conversations, strict=True):
            is_chosen = hash_conversation(one, seed) in chosen
            (aside if is_chosen else learned).write(line)
            moved += is_chosen
    os.replace(rest, train)
    return moved


def choose_wordings(conversations: Sequence[Conversation], seed: int) -> set[int]:
    """The hashes of the conversations to keep aside: at most one for a reply, of those with three wordings or more.

    A question that several conversations ask in the same words is not chosen: it would be no new wording.
    """
    if len(conversations) < TINY:
        return set()
    hashes = {hash_conversation(one, seed): one for one in conversations}
    asked = Counter(_question_words(one) for one in hashes.values())
    by_reply: dict[str, list[int]] = defaultdict(list)
    for own, one in hashes.items():
        if one.turns[-1].role == "assistant" and len(one.turns) > 1:
            by_reply[one.turns[-1].text].append(own)
    best = []
    for group in by_reply.values():
        new = [own for own in group if asked[_question_words(hashes[own])] == 1]
        if new and len(group) >= WORDINGS_OF_A_REPLY:
            best.append(min(new))
    best = sorted(best)[:WORDINGS_ASIDE]
    return set(best) if len(best) >= FEWEST_ASIDE else set()


def _question_words(conversation: Conversation) -> str:
    """The words of the last question in lower case."""
    return " ".join(re.findall(r"\w+", " ".join(conversation.texts[-2:-1]).casefold()))


def read_small_set(about: dict[str, Any]) -> SmallSet | None:
    """How the set of a run is learned, by the run's facts; None for other runs."""
    facts = about.get(ABOUT)
    try:
        return SmallSet(int(facts["wordings"]), float(facts["read"]), bool(facts["keep_last"])) if facts else None
    except (KeyError, TypeError, ValueError):
        return None


def describe_small_set(about: dict[str, Any], epochs: float) -> str:
    """How a small set is learned, in a sentence or two; empty for other runs."""
    small = read_small_set(about)
    if small is None:
        return ""
    taught = (
        f"Few questions and answers: each is read about {epochs * small.read:.0f} times, "
        f"in {small.wordings} wordings of what the user says."
    )
    if not small.keep_last:
        return taught
    kept = about.get("valid_conversations") or 0
    if kept:
        return f"{taught} {kept} wordings are kept aside to test on; their replies are learned from other wordings."
    return f"{taught} None is kept aside, and the last model is the result."


def resolve_small_set(config: TrainConfig, small: SmallSet | None, rows: int) -> TrainConfig:
    """The settings with the epochs over all rows, the evaluations and the end that suit a small set.

    Args:
        small: None for other sets, whose settings stay as they are.
        rows: what is learned in an epoch, all wordings counted.
    """
    if small is None:
        return config
    config = replace(config, epochs=max(config.epochs * small.read / small.wordings, 0.01))
    steps = config.max_steps or math.ceil(rows / (config.batch_size * config.accumulation) * config.epochs)
    config = replace(config, evaluate_every=config.evaluate_every or math.ceil(steps / EVALUATIONS))
    return replace(config, patience=0) if small.keep_last else config
