"""Messages of a chat -> conversations with one of its people. Knows who speaks and when; knows no file and no export.

A chat export says who wrote what at which time, not who asks and who answers, nor where a conversation ends. Here one
person is taken for the bot (the assistant), everybody else for the user, and a silence ends a conversation.
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
# Without times a whole chat is one conversation; beyond this it is cut, so that no file fills the memory.
MAX_CHARACTERS = 1_000_000
DAY_SECONDS = 86_400.0
NAMES_LISTED = 10


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of an export.

    Attributes:
        time: seconds since 1970 as the clock of the export showed them, None if it shows none.
        author: the name as the export has it. People with the same name are one.
        text: what was written, without the marks of the program that exported it.
        line: the line in the file; in a JSON export the number of the message, from 1.
        chat: which of several chats in one export; messages of different chats are never one conversation.
        by_bot: the export itself says that a program wrote it.
        file: where it stands, if the export is of many files.
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
    """Who speaks in an export (most messages first), who is likeliest to answer, and the first problem, if any."""

    speakers: tuple[Speaker, ...]
    likely_bot: str
    problems: tuple[Problem, ...] = ()


@dataclass(slots=True)
class _Tally:
    """What is counted of one person while a survey is made."""

    order: int
    messages: int = 0
    answers: int = 0
    endings: int = 0
    by_bot: bool = False

    def rank(self) -> tuple[bool, int, int, int]:
        return self.by_bot and self.answers > 0, self.answers, self.endings, self.order


def survey(messages: Iterable[ChatMessage | Problem], options: ReadingOptions) -> Survey:
    """Counts the people of an export in one pass.

    The likely bot is whom the export itself calls a bot, if it answers anybody at all; then who answers most often (an
    answer is a message after one of somebody else, without a long pause between them); of those who answer equally
    often, who more often has the last word before a pause; then who spoke later for the first time.

    Raises:
        DataError: so many people that it is no chat.
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
    """Whose messages the model learns to write: whom the person named, else the likely bot of the survey.

    Raises:
        DataError: fewer than two people speak, or the person named nobody of them.
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
    """The conversations of an export with `bot` as the assistant and all others as the user, in bounded memory.

    A conversation ends where nobody writes for `options.pause` minutes, where the time goes back by more than a day,
    and where another chat begins; without times a chat is one conversation. Consecutive messages of one side are one
    turn, a line each; those of several users too, without their names. The assistant may open. What the users say
    after the last answer is left out, and so is a stretch of talk without any answer: one problem at the end counts
    these. What is too long for one conversation becomes several.

    Args:
        messages: a fresh pass over the export. Problems come through in their place.
        file: what to call the export to the person.
        options: `pause` and `names` are used.
        bot: a name that `guess_bot` gave.
        people: everybody who speaks, whose names inside the texts `options.names == "replace"` replaces.
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
    """Finds where one conversation ends and the next begins, while messages go by."""

    def __init__(self, options: ReadingOptions):
        self._longest = options.pause * 60
        self._chat: str | None = None
        self._time: float | None = None

    def starts_conversation(self, message: ChatMessage) -> bool:
        """Whether a new conversation begins with this message. The very first begins none."""
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
    """The talk between two silences, turn by turn."""

    file: str
    turns: list[_Turn] = field(default_factory=list)
    characters: int = 0
    began: bool = False
    answered: bool = False

    @property
    def is_unanswered(self) -> bool:
        """Whether something was said and nothing of it gave a conversation; only known at the end."""
        return self.began and not self.answered

    def add(self, role: Role, text: str, message: ChatMessage) -> Iterator[Located]:
        """Takes a message in; gives a conversation where it would become too long with it."""
        self.began = True
        new = not self.turns or self.turns[-1].role != role
        if self.characters >= MAX_CHARACTERS or (new and len(self.turns) >= MAX_TURNS):
            # A question whose answer comes only now goes with its answer.
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
        """What is left as a conversation, if anybody was answered in it."""
        turns = self.turns[:-1] if self.turns and self.turns[-1].role == "user" else self.turns
        if len(turns) < 2:  # turns alternate and the last one is an answer: with two there is something it answers
            return
        self.answered = True
        messages = tuple(Message(turn.role, "\n".join(turn.texts)) for turn in turns)
        yield Located(Conversation(messages), turns[0].line, turns[0].file)


def _normalize_name(name: str) -> str:
    return " ".join(name.casefold().split()).removeprefix("@").removeprefix("~").strip()
