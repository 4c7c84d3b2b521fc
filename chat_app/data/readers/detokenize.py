"""Detokenization: restores spacing, capitals and full stops of tokenised text ("say , jim , how ' s it ?")."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# Punctuation and contractions with spaces around them, which occur only in tokenised text.
TOKENISED = re.compile(r"\s[,.?!;](?:\s|$)|\w\s['’]\s?(?:s|d|t|m|re|ll|ve)\b|\w n['’]t\b", re.IGNORECASE)

STRAIGHT = str.maketrans({"’": "'", "‘": "'"})
STRAIGHT_QUOTES = (("``", '"'), ("''", '"'))


@dataclass(frozen=True, slots=True)
class Rule:
    """A replacement.

    Attributes:
        signs: texts of which one must occur for the pattern to be tried, which makes most rules cheap.
        pattern: what to replace.
        put: the replacement.
    """

    signs: tuple[str, ...]
    pattern: re.Pattern[str]
    put: str | Callable[[re.Match[str]], str] = r"\1"


# Applied in this order. Each rule only removes spaces, so the repair is idempotent.
RULES = (
    # it ' s, I 'm; do n't; o ' clock
    Rule(("'",), re.compile(r"(?<=[^\W\d_]) ?' ?(s|d|t|m|re|ll|ve)(?![\w'])", re.IGNORECASE), r"'\1"),
    Rule((" n't", " N'T"), re.compile(r"(?<=[^\W\d_]) (n't)(?!\w)", re.IGNORECASE)),
    Rule((" '", "' "), re.compile(r"(?<!\w)(o|y|ma) ?' ?(clock|all|am)(?!\w)", re.IGNORECASE), r"\1'\2"),
    # 3 . 5; 1 , 000; 10 : 30; $ 5; 20 %
    Rule((" . ",), re.compile(r"(?<=\d) \. (?=\d)"), "."),
    Rule((" , ",), re.compile(r"(?<=\d) , (?=\d{3}(?!\d))"), ","),
    Rule((" : ",), re.compile(r"(?<=\d) : (?=\d\d(?!\d))"), ":"),
    Rule(("$ ", "£ ", "€ "), re.compile(r"([$£€]) (?=\d)")),
    Rule((" %",), re.compile(r"(?<=\d) %"), "%"),
    # a site; U . S . A .; a smile
    Rule((" . ",), re.compile(r"(?<=\w) \. (com|net|org|edu|gov)(?!\w)"), r".\1"),
    Rule((" .", ". "), re.compile(r"(?<!\w)([^\W\d_]) ?\. ?(?=[^\W\d_] ?\.(?:\s|$|\w))"), r"\1."),
    Rule((" )", " ("), re.compile(r"(?<!\S)([:;]) ([()])(?!\S)"), r"\1\2"),
    Rule(("( ", "[ ", "{ "), re.compile(r"(?<![:;])([(\[{]) +")),
    Rule((" )", " ]", " }"), re.compile(r" +([)\]}])")),
    Rule((". .", ".."), re.compile(r" ?\.(?: ?\.)+"), lambda dots: "." * dots.group().count(".")),
)
AFTER_QUOTES = (
    Rule((" ,", " .", " ?", " !"), re.compile(r" +([,.?!])(?=[\s,.?!\"')\]]|$)")),
    Rule((" :", " ;"), re.compile(r" +([:;])(?=\s|$)")),
)
ALONE = re.compile(r"(?<!\S)'(?!\S)")
QUOTED = re.compile(r"(?<!\S)' ([^']+?) '(?!\S)")
POSSESSIVE = re.compile(r"(?<=[sS]) '(?= \w)")

OPENING, CLOSING = "\"'([{", "\"')]}"
ABBREVIATIONS = frozenset(("mr", "mrs", "ms", "dr", "st", "prof", "vs", "etc", "jr", "sr"))
INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])+")

# The pieces that gpt2-dialogue-generation works on: those of the pre-tokenizer of GPT-2.
PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\w\s]|_)+|\s+(?!\S)|\s+")
LEGACY_MARKS = frozenset((".", ",", "?", "!", "..."))
LEGACY_ENDINGS = frozenset(("s", "d", "t", "m", "re", "ll", "ve", "S", "D", "T", "M", "Re", "Ll", "Ve"))


def detokenize(text: str, *, legacy: bool = False) -> str:
    """Detokenize a text: restore the spacing, the capitals at the beginning of sentences and the last full stop.

    Args:
        text: the text. Detokenizing twice changes nothing more.
        legacy: reproduce gpt2-dialogue-generation exactly: a capital after each punctuation mark, also after commas,
            and a space between "3." and "5".
    """
    text = text.translate(STRAIGHT).strip()
    if legacy:
        return _detokenize_legacy(text)
    while (better := _repair_once(text)) != text:
        text = better
    return text


def looks_tokenised(text: str) -> bool:
    """Whether a text has punctuation between spaces, as tokenised text does."""
    return TOKENISED.search(text) is not None


def tidy_text(text: str, tidy: str, *, tokenised: bool = True) -> str:
    """Apply the setting `tidy` to a text.

    Args:
        text: the text.
        tidy: "automatic", "legacy" or "off".
        tokenised: whether the corpus is known to be tokenised; if not, "automatic" changes only texts that look so.
    """
    if tidy == "off":
        return text
    if tidy == "legacy":
        return detokenize(text, legacy=True)
    return detokenize(text) if tokenised or looks_tokenised(text) else text


def _repair_once(text: str) -> str:
    text = " ".join(text.split())
    for sign, straight in STRAIGHT_QUOTES:
        text = text.replace(sign, straight)
    text = _attach_single_quotes(_attach_double_quotes(_apply_rules(text, RULES)))
    return _add_full_stop(_capitalize_sentences(_apply_rules(text, AFTER_QUOTES)))


def _apply_rules(text: str, rules: Iterable[Rule]) -> str:
    for rule in rules:
        if any(sign in text for sign in rule.signs):
            text = rule.pattern.sub(rule.put, text)
    return text


def _attach_double_quotes(text: str) -> str:
    """Attach quotation marks to the words that they enclose; an unpaired one changes nothing."""
    pieces = text.split('"')
    if len(pieces) % 2 == 0:
        return text
    return '"'.join(piece.strip() if number % 2 else piece for number, piece in enumerate(pieces))


def _attach_single_quotes(text: str) -> str:
    """Attach single quotes: in pairs they enclose words, otherwise they follow an s (the dogs' food)."""
    alone = len(ALONE.findall(text)) if "'" in text else 0
    if not alone:
        return text
    return QUOTED.sub(r"'\1'", text) if alone % 2 == 0 else POSSESSIVE.sub("'", text)


def _capitalize_sentences(text: str) -> str:
    words, begins = text.split(" "), True
    for number, word in enumerate(words):
        if begins:
            words[number] = _capitalize(word)
            begins = not any(sign.isalnum() for sign in word)
        begins = begins or (not word[-1:].isalnum() and _ends_sentence(word))
    return " ".join(words)


def _capitalize(word: str) -> str:
    if "://" in word or "@" in word or word.startswith("www."):
        return word
    start = len(word) - len(word.lstrip(OPENING))
    first = word[start : start + 1]
    return word[:start] + first.upper() + word[start + 1 :] if first.islower() and len(first.upper()) == 1 else word


def _ends_sentence(word: str) -> bool:
    """Whether a word ends a sentence; not with an ellipsis, and not as an abbreviation or an initial."""
    bare = word.rstrip(CLOSING)
    if bare.endswith(("?", "!")):
        return True
    if not bare.endswith(".") or bare.endswith(".."):
        return False
    core = bare[:-1].lstrip(OPENING)
    initial = len(core) == 1 and core.isalpha() and core not in "iI"
    return not (initial or core.lower() in ABBREVIATIONS or INITIALS.fullmatch(core))


def _add_full_stop(text: str) -> str:
    """Add a full stop if the text ends in a word, not in punctuation or a smiley."""
    return f"{text}." if text.rstrip(CLOSING)[-1:].isalnum() else text


def _detokenize_legacy(text: str) -> str:
    pieces = PIECES.findall(text)
    if not pieces:
        return ""
    pieces[0] = pieces[0].capitalize()
    open_quotes = 0
    for number in range(len(pieces)):
        piece = pieces[number]
        follows = pieces[number + 1] if number + 1 < len(pieces) else None
        bare = piece[1:] if piece.startswith(" ") else ""
        if bare in LEGACY_MARKS or bare in LEGACY_ENDINGS:
            pieces[number] = bare
        if bare == "'" and follows is not None and follows.removeprefix(" ") in LEGACY_ENDINGS:
            pieces[number] = bare
        if bare in ('"', "'"):
            if open_quotes:
                pieces[number] = bare
            elif follows is not None:
                pieces[number + 1] = follows.removeprefix(" ")
            open_quotes = 1 - open_quotes
        if (piece in LEGACY_MARKS or piece[1:] in LEGACY_MARKS) and follows is not None:
            pieces[number + 1] = " " + pieces[number + 1].removeprefix(" ").capitalize()
    kept = [piece for piece in pieces if piece.strip()]
    if kept[-1] not in LEGACY_MARKS:
        kept.append(".")
    return "".join(kept)
