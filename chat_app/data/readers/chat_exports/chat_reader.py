"""The base class of the readers of chat exports: from messages to conversations with one speaker as the assistant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from chat_app.data.readers.chat_exports import threading
from chat_app.data.readers.chat_exports.threading import ChatMessage
from chat_app.data.readers.options import ReadingOptions
from chat_app.data.readers.types import Kind, Located, Preview, Problem, Speaker

Messages = Iterator[ChatMessage | Problem]
AnyChatReader = TypeVar("AnyChatReader", bound="ChatReader")


@dataclass(frozen=True)
class ChatReader:
    """Reads one chat export. A subclass adds `sniff`, which calls `survey`.

    Attributes:
        kind: the program that exported the chat.
        name: the name to show for the file.
        encoding: the encoding of the file.
        options: the bot, the pause between conversations, and whether names are replaced.
        messages: starts a pass over the messages; called once for the survey and once for each `read`.
        speakers: all speakers, those with the most messages first.
        bot: the speaker whose messages become the assistant's.
    """

    kind: Kind
    name: str
    encoding: str
    options: ReadingOptions
    messages: Callable[[], Messages]
    speakers: tuple[Speaker, ...]
    bot: str

    @classmethod
    def survey(
        cls: type[AnyChatReader],
        kind: Kind,
        name: str,
        encoding: str,
        options: ReadingOptions,
        messages: Callable[[], Messages],
    ) -> AnyChatReader:
        """Create a reader after one pass over the messages, which counts the speakers and guesses the bot.

        Raises:
            DataError: fewer than two people write, or none of them has the name that the options give the bot.
        """
        found = threading.survey(messages(), options)
        bot = threading.guess_bot(found, options, name)
        return cls(kind, name, encoding, options, messages, found.speakers, bot)

    def preview(self) -> Preview:
        """The speakers, and which of them becomes the assistant."""
        return Preview(self.name, self.kind, self.encoding, speakers=self.speakers, bot=self.bot)

    def read(self, *, need_reply: bool = True) -> Iterator[Located | Problem]:
        """The conversations. Messages without any reply of the bot are skipped, also if `need_reply` is False."""
        return threading.read_conversations(self.messages(), self.name, self.options, self.bot, self.speakers)
