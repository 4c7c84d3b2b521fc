"""The rules of a server: where it listens, who may train, how much may be uploaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

LOOPBACK = ("127.0.0.1", "localhost", "::1")
UPLOAD_BYTES = 5 * 10**9
SHARED_UPLOAD_BYTES = 200 * 10**6
QuoteMode = Literal["off", "sure", "only"]
"""Whether replies are quoted from the questions and answers that a model was taught. "off": the model writes them all.
"sure": where a taught question was surely meant. "only": as "sure", and what is not sure is said not to be known."""
QUOTE_MODES: tuple[QuoteMode, ...] = get_args(QuoteMode)


@dataclass(frozen=True)
class ServerRules:
    """What this server allows.

    Attributes:
        host, port: where it listens.
        auth_file: a file of `name:password` lines, or None.
        training: whether visitors may train.
        upload_bytes: the largest upload in bytes; 0 means 5 GB, or 200 MB on a shared server.
        origins: other origins (CORS) whose pages may call this server.
        share: whether Gradio makes a public link.
        answers: whether replies are quoted from the list that the model was taught, unless a person chooses otherwise.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    auth_file: Path | None = None
    training: bool = True
    upload_bytes: int = 0
    origins: tuple[str, ...] = ()
    share: bool = False
    answers: QuoteMode = "off"

    @property
    def upload_limit(self) -> int:
        """The most bytes of one upload; a larger one is refused before it is read."""
        return self.upload_bytes or (SHARED_UPLOAD_BYTES if self.is_shared else UPLOAD_BYTES)

    @property
    def on_space(self) -> bool:
        """Whether this is a Hugging Face Space."""
        return bool(os.environ.get("SPACE_ID"))

    @property
    def is_shared(self) -> bool:
        """Whether strangers can reach the server. Visitors then see only their own runs, and none can switch the shared
        model."""
        return self.on_space or self.share or self.auth_file is not None or self.host not in LOOPBACK
