"""Chats of Microsoft's Bot Framework (.chat) -> messages: "user=Anna", "bot=Shop", then lines with one of the two."""

from __future__ import annotations

import re
from functools import partial

from chat_app.data.readers.chat_exports.line_log import Begun, LineLogReader, sample_lines
from chat_app.data.readers.protocol import InputFile

HEADER = re.compile(r"(?i)\s{0,8}(user|bot)[ \t]*=[ \t]*(\S.{0,79}?)[ \t]*")
COMMENT = re.compile(r"\s{0,8}(?:>|<!--|//).*")
# [Typing], [Delay=3000], [Attachment=...], [SuggestedActions=Yes|No]
COMMAND = re.compile(
    r"\[(?:Typing|Delay|Attachment\w*|SuggestedActions|Activity|ConversationUpdate|Card\w*|\w*Card|Event|Trace"
    r"|EndOfConversation|MessageReaction\w*|InputHint)(?:\s?=[^\[\]]{0,2000}|\s[^\[\]]{0,2000})?\]",
    re.IGNORECASE,
)
HEAD_LINES = 30


class BotFrameworkReader(LineLogReader):
    """Reads a .chat file."""

    @classmethod
    def sniff(cls, file: InputFile) -> BotFrameworkReader | None:
        """A reader if the first lines say who the user and who the bot is, and one of them speaks."""
        if not re.search(r"(?im)^\s{0,8}(?:user|bot)[ \t]*=", file.beginning[:4_000]):
            return None
        names = {"user": "user", "bot": "bot"}
        lines = sample_lines(file)
        for line in lines[:HEAD_LINES]:
            if match := HEADER.fullmatch(line):
                names[match[1].lower()] = match[2]
        spoken = dict.fromkeys((*names.values(), "user", "bot"))
        either = "|".join(re.escape(name) for name in spoken)
        pattern = re.compile(rf"\s{{0,8}}({either})[ \t]*:(.*)", re.IGNORECASE)
        if not any(pattern.fullmatch(line) for line in lines):
            return None
        return cls.open_log("bot_framework", file, partial(ChatFileParser, pattern, names["user"], names["bot"]))


class ChatFileParser:
    """Finds who begins to speak."""

    def __init__(self, pattern: re.Pattern[str], user: str, bot: str):
        self._pattern = pattern
        self._names = {"user": user, "bot": bot, user.casefold(): user, bot.casefold(): bot}
        self._bot = bot

    def parse(self, line: str) -> Begun | None:
        """A speaker with the text of this line; headers and comments end what is said."""
        if HEADER.fullmatch(line) or COMMENT.fullmatch(line):
            return Begun()
        match = self._pattern.fullmatch(line)
        if match is None:
            return None
        name = self._names.get(match[1].casefold(), match[1])
        return Begun(name, match[2].strip(), by_bot=name == self._bot)

    def clean(self, text: str) -> str:
        """The text without commands to the program."""
        return COMMAND.sub("", text).strip()
