"""What this project asks of a tokenizer: the part of transformers' `PreTrainedTokenizerFast` that it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Protocol

from tokenizers import Tokenizer


class ChatTokenizer(Protocol):
    """A fast tokenizer of transformers, which itself is imported only where models are loaded.

    Attributes:
        bos_token, eos_token, sep_token, pad_token: spellings; None where it has no such token.
        bos_token_id, eos_token_id, sep_token_id, pad_token_id: their ids.
        chat_template: in Jinja, or None; some have several by name.
        template_renderer: what renders the chat template, once `render_template` has started it.
        added_tokens_decoder: id -> `AddedToken`.
        backend_tokenizer: of the library tokenizers.
    """

    bos_token: str | None
    eos_token: str | None
    sep_token: str | None
    pad_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    sep_token_id: int | None
    pad_token_id: int | None
    chat_template: Any
    template_renderer: Any

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """The added tokens by id."""

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The tokenizer that does the work."""

    def __len__(self) -> int:
        """The size of its vocabulary, added tokens included."""

    def get_vocab(self) -> dict[str, int]:
        """Token -> id."""

    def convert_tokens_to_ids(self, tokens: str) -> Any:
        """The id of a token."""

    def convert_ids_to_tokens(self, ids: int) -> Any:
        """The token of an id."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        """The text of tokens."""

    def add_special_tokens(self, special_tokens_dict: dict[str, Any], replace_extra_special_tokens: bool) -> int:
        """Add special tokens; returns how many are new."""

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, str]], *, tokenize: bool, add_generation_prompt: bool = False
    ) -> Any:
        """The text of a conversation by the chat template."""

    def save_pretrained(self, save_directory: str | PathLike[str], **kwargs: Any) -> Any:
        """Write its files into a folder."""
