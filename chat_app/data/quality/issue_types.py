"""The kinds of findings with their titles and advice for people, and the repairs that remove them."""

from __future__ import annotations

from dataclasses import dataclass

LONG_TURN = 4_096  # characters: about what fits into the window of GPT-2
CHARACTERS_A_TOKEN = 4
COMMON_SHARE = 0.1
COMMON_FEWEST = 5


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        name: the identifier, for programs.
        title: what was found, in a few words.
        advice: what it does to a model, and what can be done.
    """

    name: str
    title: str
    advice: str

    @property
    def repair(self) -> str | None:
        """The name of the repair that removes it, which is the same as its own; None if there is no safe one."""
        return self.name if self.name in REPAIRS else None


@dataclass(frozen=True)
class Repair:
    """A repair that `apply_repairs` can make.

    Attributes:
        name: the name of the finding that it removes.
        label: the label of its switch, a few words.
        help: what it changes, in one sentence.
        is_on: whether it is on by default, which is so only where nothing valuable can be lost.
    """

    name: str
    label: str
    help: str
    is_on: bool = False


_KINDS = (
    Kind(
        "duplicates",
        "Conversations that are in the data more than once",
        "What is there several times is learned by heart. Keep one of each, unless you repeat something on purpose.",
    ),
    Kind(
        "near_duplicates",
        "Conversations that are nearly the same as an earlier one",
        "They differ only in capitals, punctuation or spaces, or share about four in five of their pairs of words. "
        "Different wordings of one question are good for a model; copies with a changed word are not.",
    ),
    Kind(
        "empty_turns",
        "Turns with nothing to read",
        "They hold only punctuation or invisible characters, and a model learns to answer the same way.",
    ),
    Kind(
        "one_sided",
        "Conversations in which only one side says something",
        "Only one person speaks, or the user says the same thing every time. It teaches nothing about answering.",
    ),
    Kind(
        "same_reply",
        "Replies that are the same again and again",
        f"One reply is {COMMON_SHARE:.0%} of all replies or more. A model will give it to questions where it is wrong. "
        "Leave out some of them, or write different ones.",
    ),
    Kind(
        "loops",
        "Replies that repeat a phrase over and over",
        "A model that learns them gets stuck in loops itself. Shorten them, or leave these conversations out.",
    ),
    Kind(
        "long_turns",
        "Extremely long turns",
        "A turn like this does not fit the model's window, so its beginning is cut off. Shorten it, or split it.",
    ),
    Kind(
        "special_tokens",
        "Spelled special tokens and marks of templates",
        "Something like <|End|> or [INST] was left in a text by another program. A model learns to write it out.",
    ),
    Kind(
        "quoted",
        "Nearly every text is in quotes",
        "The quotation marks belong to the table and not to what was said, and a model learns to write them. Say how "
        "the file is laid out (its delimiter, or that it is a table), or export it again without quotes.",
    ),
    Kind(
        "mojibake",
        "Turns with mixed-up characters",
        "The text was once opened in a wrong encoding, so that é became Ã©. It can be turned back.",
    ),
    Kind(
        "lost_characters",
        "Turns with lost characters",
        "Where � stands, a character was lost when the file was written, and nobody can tell which. Export the file "
        "again as UTF-8.",
    ),
    Kind(
        "html",
        "Left-overs of HTML",
        "Tags such as <br> and entities such as &amp; come from web pages. Keep them if the conversations are about "
        "HTML; else a model learns to write them.",
    ),
    Kind(
        "keys",
        "Keys and passwords",
        "A model can give away what it learned. Mask them, and change those that are in use: others have this file.",
    ),
    Kind(
        "emails",
        "E-mail addresses",
        "A model can give away what it learned. Mask them, unless they are public and replies must name them.",
    ),
    Kind(
        "phones",
        "Phone numbers",
        "A model can give away what it learned. Mask them, unless they are public and replies must name them.",
    ),
    Kind("cards", "Numbers of payment cards", "A model can give away what it learned. Mask them."),
    Kind(
        "bank_accounts",
        "Numbers of bank accounts",
        "A model can give away what it learned. Mask them.",
    ),
    Kind(
        "identity_numbers",
        "Identity, tax and social security numbers",
        "A model can give away what it learned. Mask them.",
    ),
    Kind("birth_dates", "Dates of birth", "A model can give away what it learned. Mask them."),
    Kind(
        "streets",
        "Street addresses",
        "A model can give away what it learned. Mask them, unless they are public and replies must name them.",
    ),
    Kind(
        "machine_addresses",
        "Addresses of machines",
        "IP and MAC addresses can lead to a person's computer. Mask them, unless replies must name them.",
    ),
    Kind(
        "leakage",
        "Conversations kept aside that are also learned",
        "What stands in training and in validation or test alike makes a model look better than it is.",
    ),
    Kind(
        "leaked_openings",
        "Beginnings of conversations that are both learned and kept aside",
        "The first turn and its reply are the same, so validation measures in part what was learned by heart. "
        "With common greetings that is harmless.",
    ),
)
KINDS: dict[str, Kind] = {one.name: one for one in _KINDS}

NOT_LOOKED_FOR = (
    "Private data are found by how they are spelled. Names of people, places and firms, health, faith and the like are "
    "not looked for: read some conversations yourself."
)
_REPAIRS = (
    Repair("mojibake", "Mend mixed-up characters", "Turns Ã© back into é. Other text stays as it is.", True),
    Repair("html", "Remove HTML", "Entities become the signs they mean, tags disappear, <br> becomes a new line."),
    Repair("special_tokens", "Remove spelled special tokens", "Takes <|End|>, [INST], ### Human: and the like out."),
    Repair("keys", "Mask keys and passwords", "Writes [key] instead.", True),
    Repair("emails", "Mask e-mail addresses", "Writes [e-mail] instead."),
    Repair("phones", "Mask phone numbers", "Writes [phone] instead."),
    Repair("cards", "Mask payment cards", "Writes [card] instead.", True),
    Repair("bank_accounts", "Mask bank accounts", "Writes [account] instead.", True),
    Repair("identity_numbers", "Mask identity numbers", "Writes [id] instead.", True),
    Repair("birth_dates", "Mask dates of birth", "Writes [date of birth] instead."),
    Repair("streets", "Mask street addresses", "Writes [street] instead."),
    Repair("machine_addresses", "Mask addresses of machines", "Writes [address] instead."),
    Repair(
        "empty_turns",
        "Leave out turns with nothing to read",
        "Leaves the turn out if the two sides still take turns without it, else the whole conversation.",
        True,
    ),
    Repair("one_sided", "Leave out one-sided conversations", "Conversations in which only one side says something."),
    Repair("duplicates", "Leave out copies", "Of equal conversations the first is kept.", True),
    Repair("near_duplicates", "Leave out near copies", "Of nearly equal conversations the first is kept."),
    Repair(
        "leakage",
        "Learn nothing that is kept aside",
        "Leaves out of training what stands word for word in validation or test.",
        True,
    ),
    Repair(
        "leaked_openings",
        "Learn no opening that is kept aside",
        "Leaves out of training what has its first turn and reply, or everything, in common with validation or test.",
    ),
)
REPAIRS: dict[str, Repair] = {one.name: one for one in _REPAIRS}
