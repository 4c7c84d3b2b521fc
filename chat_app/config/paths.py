"""Where files lie: the home folder, and what comes with the product."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from chat_app.system.disk_cache import Cache
from chat_app.system.installation import find_shipped

STARTER = "starter"
CACHE_BYTES = 20 * 10**9


@dataclass(frozen=True)
class Paths:
    """Where things lie on this computer.

    Attributes:
        home: the folder of everything that this person makes.
        keep_seconds: how long what can be made again is kept after its last use.
    """

    home: Path
    keep_seconds: float = 30 * 86_400.0

    @classmethod
    def default(cls) -> Paths:
        """CHAT_APP_HOME, else the storage of a Space, else the user's data folder."""
        chosen = os.environ.get("CHAT_APP_HOME")
        if chosen:
            return cls(Path(chosen).expanduser().resolve())
        storage = Path("/data")
        if os.environ.get("SPACE_ID") and storage.is_dir() and os.access(storage, os.W_OK):
            return cls(storage / "chat_app")
        return cls(Path(platformdirs.user_data_dir("chat_app", appauthor=False)))

    @property
    def runs(self) -> Path:
        """One folder a training run."""
        return self.home / "runs"

    def open_cache(self, kind: str) -> Cache:
        """What can be made again: "material" (conversations as they were read) or "rows" (laid out for a model)."""
        return Cache(self.home / "cache" / kind, CACHE_BYTES, self.keep_seconds)

    @property
    def assets(self) -> Path:
        """What comes with the product."""
        return find_shipped("assets")

    @property
    def starter(self) -> Path:
        """The model that comes with the product."""
        return self.assets / "starter"

    @property
    def samples(self) -> Path:
        """Conversations that come with the product."""
        return find_shipped("sample_data")
