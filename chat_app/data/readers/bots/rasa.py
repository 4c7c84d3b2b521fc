"""A Rasa bot -> conversations: stories and rules, with what people say and what the bot answers put in.

Files of YAML (Rasa 2 and 3) and Markdown (Rasa 1) are understood together: examples of what people say (nlu), stories
or rules, and the answers (domain). What only a program could answer ends the conversation there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from chat_app.conversation import Conversation, Message
from chat_app.data.readers.bots import rasa_files
from chat_app.data.readers.bots.pairs import build_pair, pair_up
from chat_app.data.readers.bots.rasa_files import RasaParts, Story
from chat_app.data.readers.protocol import InputFile, JoinedReader, OpenedReader
from chat_app.data.readers.turn_text import MAX_TURNS, replace_unstorable
from chat_app.data.readers.types import Located, Preview, Problem
from chat_app.errors import DataError

# A story becomes one conversation for each wording of its turns, at most so many.
MOST_VARIANTS = 50
ANSWER = "utter_"
TOGETHER = "Give the files together: nlu.yml, stories.yml or rules.yml, and domain.yml, or their folder."


class RasaReader(JoinedReader):
    """Reads the files of a Rasa bot."""

    @classmethod
    def sniff(cls, file: InputFile) -> RasaReader | None:
        """A reader if the file begins as one of Rasa's does."""
        return cls(file) if rasa_files.detect_layout(file) is not None else None

    @classmethod
    def join(cls, files: Sequence[InputFile]) -> Sequence[OpenedReader]:
        """One reader of all files of the bot."""
        parts = RasaParts()
        for file in files:
            rasa_files.collect(file, parts)
        first = files[0]
        folder = first.name.rpartition("/")[0]
        name = first.name if len(files) == 1 else folder.partition("/")[0] or f"{first.name} and others"
        if not parts.answers and not any(step.text for story in parts.stories for step in story.steps):
            raise DataError("These are parts of a Rasa bot without its answers.", where=name, advice=TOGETHER)
        if not parts.examples and not any(step.text for story in parts.stories for step in story.steps):
            raise DataError("These are parts of a Rasa bot without what people say to it.", where=name, advice=TOGETHER)
        return [RasaBot(name, first.source.encoding, parts)]


@dataclass
class _Outcome:
    """What was found while stories were read: the intents that one has answered, and how many steps were left out."""

    answered: set[str] = field(default_factory=set)
    cut: int = 0


@dataclass(frozen=True)
class RasaBot:
    """A whole bot."""

    name: str
    encoding: str
    parts: RasaParts

    def preview(self) -> Preview:
        """The kind."""
        return Preview(self.name, "rasa", self.encoding)

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The stories in several wordings, then the intents that no story has and one answer belongs to."""
        outcome = _Outcome()
        for story in self.parts.stories:
            for turns in self._split_story(story, outcome):
                yield from self._build_variants(turns, story)
        for intent, examples in self.parts.examples.items():
            answers = self.parts.answers.get(ANSWER + intent, [])
            if intent not in outcome.answered and answers:
                line, file = self.parts.places[intent]
                for question, answer in pair_up(examples, answers):
                    yield Located(build_pair(replace_unstorable(question), replace_unstorable(answer)), line, file)
        if outcome.cut:
            steps = "1 step of a story is" if outcome.cut == 1 else f"{outcome.cut:,} steps of stories are"
            reason = f"{steps} answered by a program, or by nothing that is written here."
            yield Problem(
                self.name, None, reason, "Give also domain.yml, if it is missing; nothing else is to be done."
            )

    def _split_story(self, story: Story, outcome: _Outcome) -> Iterator[list[tuple[list[str], list[str]]]]:
        """The stretches of a story in which everything that is said is answered: (wordings, answers) for each turn."""
        stretch: list[tuple[list[str], list[str]]] = []
        steps = story.steps
        for number, step in enumerate(steps):
            if not step.by_user:
                continue
            said = [step.text] if step.text else self.parts.examples.get(step.name, [])
            following = []
            for after in steps[number + 1 :]:
                if after.by_user:
                    break
                following.append(after)
            replies = [
                [one.text] if one.text else self._find_answers(one.name, step.name)
                for one in following
            ]  # fmt: skip
            known = [texts for texts in replies if texts]
            if (
                not said
                or not known
                or len(known) < sum(one.text != "" or one.name.startswith(ANSWER) for one in following)
            ):
                outcome.cut += 1
                yield stretch
                stretch = []
                continue
            outcome.answered.add(step.name)
            stretch.append((said, _combine(known)))
        yield stretch

    def _find_answers(self, action: str, intent: str) -> list[str]:
        """The texts of an answer. Of a retrieval intent (faq/hours) the action names only its first half."""
        return self.parts.answers.get(action) or self.parts.answers.get(
            f"{ANSWER}{intent}" if action == ANSWER + intent.partition("/")[0] else "", []
        )

    def _build_variants(self, turns: list[tuple[list[str], list[str]]], story: Story) -> Iterator[Located]:
        """A stretch in as many wordings as its turns have, each of them used at least once."""
        if not turns or 2 * len(turns) > MAX_TURNS:
            return
        variants = max(max(len(said), len(replies)) for said, replies in turns)
        for number in range(min(variants, MOST_VARIANTS)):
            messages = []
            for said, replies in turns:
                messages.append(Message("user", replace_unstorable(said[number % len(said)])))
                messages.append(Message("assistant", replace_unstorable(replies[number % len(replies)])))
            yield Located(Conversation(tuple(messages)), story.line, story.file)


def _combine(replies: list[list[str]]) -> list[str]:
    """Several answers after each other as one, a line each, in as many wordings as the richest of them has."""
    count = max(map(len, replies))
    return ["\n".join(texts[number % len(texts)] for texts in replies) for number in range(count)]
