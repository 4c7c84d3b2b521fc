"""Adds a chat format's special tokens to a tokenizer, and makes a tokenizer of plain text that has none."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer

from chat_app.errors import FormatError
from chat_app.tokenization.chat_formats import ChatFormat
from chat_app.tokenization.chat_tokenizer import ChatTokenizer


def add_format_tokens(tokenizer: ChatTokenizer, chat_format: ChatFormat) -> dict[str, str]:
    """Add the format's special tokens that a tokenizer lacks to it.

    Returns:
        Name -> spelling of each of the format's special tokens in this tokenizer.

    Raises:
        FormatError: the format needs the tokenizer's own end token and there is none.
    """
    special_tokens: dict[str, str] = {}
    for name, spelling in chat_format.special_tokens.items():
        if spelling == "<eos>":
            if tokenizer.eos_token is None:
                raise FormatError(
                    f"The format '{chat_format.name}' needs an end-of-text token, and this tokenizer has none.",
                    advice="Use the format 'roles', which brings its own.",
                )
            spelling = tokenizer.eos_token
        elif spelling == "<sep>":
            spelling = _separator(tokenizer)
        special_tokens[name] = spelling
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    missing = [
        AddedToken(spelling, special=True, normalized=False)
        for spelling in special_tokens.values()
        if spelling not in special
    ]
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    return special_tokens


def _separator(tokenizer: ChatTokenizer) -> str:
    """The tokenizer's separator, else its end-of-text token, as convmodel does with GPT-2."""
    vocabulary = tokenizer.get_vocab()
    for spelling in (tokenizer.sep_token, "<sep>"):
        if spelling is not None and spelling in vocabulary:
            return str(spelling)
    return str(tokenizer.eos_token) if tokenizer.eos_token is not None else "<sep>"


def plain_text_tokenizer(tokenizer: ChatTokenizer, special_tokens: dict[str, str]) -> Tokenizer:
    """A tokenizer with the same vocabulary and no special tokens, which neither truncates nor pads.

    The vocabulary, nearly all of a tokenizer's size, is shared and not copied: copying it would delay loading a model.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise FormatError(
            "This tokenizer has no fast version.", advice="Save it as tokenizer.json with transformers first."
        )
    plain = Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if (value := getattr(backend, part)) is not None:
            setattr(plain, part, value)
    plain.encode_special_tokens = True  # Special tokens between the others are encoded as text.
    plain.add_tokens(_added_tokens(backend, set(special_tokens.values())))
    return plain


def _added_tokens(backend: Tokenizer, unwanted: set[str]) -> list[AddedToken]:
    """The added tokens that text may contain, in the order of their ids.

    `Tokenizer.add_tokens` gives each the next free id. So special tokens between them are listed too: without them the
    tokens after them would get other ids.
    """
    added = [token for _, token in sorted(backend.get_added_tokens_decoder().items())]
    wanted = [not token.special and token.content not in unwanted for token in added]
    numbered = [backend.model.token_to_id(token.content) is None for token in added]
    last = max((at for at, pair in enumerate(zip(wanted, numbered, strict=True)) if all(pair)), default=-1)
    for token in added:
        token.special = token.special or token.content in unwanted
    return [one for at, one in enumerate(added) if wanted[at] or (numbered[at] and at < last)]
