"""Threading: divides the messages of a chat into conversations, and assigns the roles.

A chat export has authors and times, but neither roles nor boundaries of conversations. So one speaker, the bot, becomes
the assistant, all others become the user, and a long pause ends a conversation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from chat_app.conversation import Conversation, Message, Role
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.pseudonyms import Pseudonyms
from chat_app.data.readers.turn_text import MAX_TURNS, replace_unstorable
from chat_app.data.readers.types import Located, Problem, Speaker, quote_text
from chat_app.errors import DataError

MAX_SPEAKERS = 100_000
# Without times a whole chat is one conversation; it is divided at this size to bound the memory.
MAX_CHARACTERS = 1_000_000
DAY_SECONDS = 86_400.0
NAMES_LISTED = 10


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """A message of a chat export.

    Attributes:
        time: seconds since 1970 in the clock of the export; None if it has no times.
        author: the author's name in the export. Authors with the same name count as one.
        text: the message's text, without markup of the exporting program.
        line: the line in the file, from 1; in a JSON export the number of the message.
        chat: the identifier of the chat, if an export has several; a conversation never spans two.
        by_bot: whether the export marks the author as a bot.
        file: the name of the file, if the export has many.
    """

    time: float | None
    author: str
    text: str
    line: int
    chat: str = ""
    by_bot: bool = False
    file: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """The speakers of an export (most messages first), the likeliest bot, and the first problem, if there is one."""

    speakers: tuple[Speaker, ...]
    likely_bot: str
    problems: tuple[Problem, ...] = ()


@dataclass(slots=True)
class _Tally:
    """The counts of one speaker in a survey."""

    order: int
    messages: int = 0
    answers: int = 0
    endings: int = 0
    by_bot: bool = False

    def rank(self) -> tuple[bool, int, int, int]:
        return self.by_bot and self.answers > 0, self.answers, self.endings, self.order


def survey(messages: Iterable[ChatMessage | Problem], options: ReadingOptions) -> Survey:
    """Count the messages of each speaker in one pass, and guess the bot.

    An answer is a message that follows another speaker's without a long pause. The likeliest bot is, in this order of
    criteria: a speaker whom the export marks as a bot and who gives any answer; the one with the most answers; the one
    with the most last messages before a pause; the one whose first message is the latest.

    Raises:
        DataError: there are more than 100,000 speakers, so it is no chat.
    """
    tallies: dict[str, _Tally] = {}
    pauses = _Pauses(options)
    before: _Tally | None = None
    problems: tuple[Problem, ...] = ()
    for message in messages:
        if isinstance(message, Problem):
            problems = problems or (message,)
            continue
        tally = tallies.get(message.author)
        if tally is None:
            if len(tallies) == MAX_SPEAKERS:
                raise DataError(f"More than {MAX_SPEAKERS:,} people write here.", advice="Give the export of one chat.")
            tally = tallies[message.author] = _Tally(len(tallies))
        tally.messages += 1
        tally.by_bot |= message.by_bot
        if pauses.starts_conversation(message):
            if before is not None:
                before.endings += 1
        elif before is not None and before is not tally:
            tally.answers += 1
        before = tally
    if before is not None:
        before.endings += 1
    ranked = sorted(tallies.items(), key=lambda item: -item[1].messages)
    likely = max(tallies, key=lambda name: tallies[name].rank(), default="")
    return Survey(tuple(Speaker(name, tally.messages) for name, tally in ranked), likely, problems)


def guess_bot(found: Survey, options: ReadingOptions, file: str) -> str:
    """The speaker who becomes the assistant: the one that the options name, else the likeliest bot of the survey.

    Args:
        found: the survey of the export.
        options: `bot` is a speaker's name, in any case, or empty.
        file: the name to show for the export.

    Raises:
        DataError: fewer than two people write, or none of them has the name that the options give.
    """
    if not found.speakers and found.problems:
        problem = found.problems[0]
        raise DataError(
            f"No message in this chat export can be used. {problem.reason}", where=file, advice=problem.advice
        )
    if not found.speakers:
        advice = "Export the chat again, with its messages."
        raise DataError("No message in this chat export holds text that somebody wrote.", where=file, advice=advice)
    if len(found.speakers) == 1:
        only = quote_text(found.speakers[0].name)
        raise DataError(
            f"Only {only} writes in this chat: nobody answers, so there is nothing to learn.",
            where=file,
            advice="Give a chat in which at least two people write.",
        )
    if not options.bot.strip():
        return found.likely_bot
    names = [speaker.name for speaker in found.speakers]
    wanted = _normalize_name(options.bot)
    for name in names:
        if name == options.bot:
            return name
    for name in names:
        if _normalize_name(name) == wanted:
            return name
    listed = ", ".join(quote_text(name) for name in names[:NAMES_LISTED])
    more = f" and {len(names) - NAMES_LISTED:,} more" if len(names) > NAMES_LISTED else ""
    raise DataError(
        f"Nobody in this chat is called {quote_text(options.bot)}.",
        where=file,
        advice=f"Choose one of them as the bot: {listed}{more}.",
    )


def read_conversations(
    messages: Iterable[ChatMessage | Problem],
    file: str,
    options: ReadingOptions,
    bot: str,
    people: Sequence[Speaker],
) -> Iterator[Located | Problem]:
    """Divide messages into conversations, with `bot` as the assistant and all others as the user, in bounded memory.

    A conversation ends after a pause of `options.pause` minutes, where the time goes back by more than a day, and where
    another chat begins; without times a chat is one conversation. Consecutive messages of a role are joined by line
    feeds into one turn, without the names of the users. The assistant may have the first turn. User messages after the
    last answer are dropped, and so is a conversation without any answer: one problem at the end counts these. A
    conversation that is too long is divided.

    Args:
        messages: a fresh pass over the export. Problems in it are yielded in their place.
        file: the name to show for the export.
        options: `pause` and `names` are used.
        bot: the speaker from `guess_bot`.
        people: all speakers; with `options.names == "replace"` their names are replaced inside the texts.
    """
    pseudonyms = Pseudonyms(speaker.name for speaker in people) if options.names == "replace" else None
    pauses = _Pauses(options)
    stretch = _Stretch(file)
    unanswered = 0
    for message in messages:
        if isinstance(message, Problem):
            yield message
            continue
        if pauses.starts_conversation(message):
            yield from stretch.flush()
            unanswered += stretch.is_unanswered
            stretch = _Stretch(file)
        text = replace_unstorable(message.text).strip()
        if pseudonyms is not None:
            text = pseudonyms.replace_names(text)
        if text:
            yield from stretch.add("assistant" if message.author == bot else "user", text, message)
    yield from stretch.flush()
    unanswered += stretch.is_unanswered
    if unanswered:
        talk = "1 stretch of talk holds" if unanswered == 1 else f"{unanswered:,} stretches of talk hold"
        passed = "it was" if unanswered == 1 else "they were"
        advice = "If it should be used, choose another bot or a longer pause."
        yield Problem(file, None, f"{talk} no answer of {bot}; {passed} passed over.", advice)


class _Pauses:
    """Detects the boundaries of conversations in a stream of messages."""

    def __init__(self, options: ReadingOptions):
        self._longest = options.pause * 60
        self._chat: str | None = None
        self._time: float | None = None

    def starts_conversation(self, message: ChatMessage) -> bool:
        """Whether this message starts a new conversation; never for the first message of the stream."""
        first, same = self._chat is None, self._chat == message.chat
        passed = 0.0
        if same and self._time is not None and message.time is not None:
            passed = message.time - self._time
        if not same or message.time is not None:
            self._time = message.time
        self._chat = message.chat
        return not first and (not same or passed > self._longest or passed < -DAY_SECONDS)


@dataclass(slots=True)
class _Turn:
    role: Role
    texts: list[str]
    line: int
    file: str


@dataclass(slots=True)
class _Stretch:
    """Collects the turns of one conversation."""

    file: str
    turns: list[_Turn] = field(default_factory=list)
    characters: int = 0
    began: bool = False
    answered: bool = False

    @property
    def is_unanswered(self) -> bool:
        """Whether there were messages and none of them became part of a conversation; valid after `flush`."""
        return self.began and not self.answered

    def add(self, role: Role, text: str, message: ChatMessage) -> Iterator[Located]:
        """Add a message; yields the conversation so far if it would become too long."""
        self.began = True
        new = not self.turns or self.turns[-1].role != role
        if self.characters >= MAX_CHARACTERS or (new and len(self.turns) >= MAX_TURNS):
            # The question that this message answers moves to the next conversation with it.
            question = self.turns[-1:] if new and role == "assistant" and len(self.turns) > 1 else []
            yield from self.flush()
            self.turns = question
            self.characters = sum(len(one) + 1 for turn in question for one in turn.texts)
            new = not question or question[-1].role != role
        if new:
            self.turns.append(_Turn(role, [], message.line, message.file or self.file))
        self.turns[-1].texts.append(text)
        self.characters += len(text) + 1

    def flush(self) -> Iterator[Located]:
        """Yield the conversation, if it has an answer."""
        turns = self.turns[:-1] if self.turns and self.turns[-1].role == "user" else self.turns
        if len(turns) < 2:  # roles alternate and the last turn is an answer: two turns contain what it answers
            return
        self.answered = True
        messages = tuple(Message(turn.role, "\n".join(turn.texts)) for turn in turns)
        yield Located(Conversation(messages), turns[0].line, turns[0].file)


def _normalize_name(name: str) -> str:
    return " ".join(name.casefold().split()).removeprefix("@").removeprefix("~").strip()
