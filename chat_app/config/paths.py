"""Locations on disk: the home folder with runs and caches, and the files that are shipped with the product."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from chat_app.errors import SettingError
from chat_app.system.disk_cache import Cache
from chat_app.system.installation import find_shipped

STARTER = "starter"
CACHE_BYTES = 20 * 10**9


@dataclass(frozen=True)
class Paths:
    """Locations on this computer.

    Attributes:
        home: the folder of all runs and caches of a user.
        keep_seconds: how long a cache entry is kept after its last use, in seconds.
    """

    home: Path
    keep_seconds: float = 30 * 86_400.0

    @classmethod
    def default(cls) -> Paths:
        """The paths below CHAT_APP_HOME, else below a Space's persistent storage, else below the user's data folder."""
        chosen = os.environ.get("CHAT_APP_HOME")
        if chosen:
            return cls(Path(chosen).expanduser().resolve())
        storage = Path("/data")
        if os.environ.get("SPACE_ID") and storage.is_dir() and os.access(storage, os.W_OK):
            return cls(storage / "chat_app")
        return cls(Path(platformdirs.user_data_dir("chat_app", appauthor=False)))

    def make_home(self) -> Paths:
        """Create the home folder, if it is missing, and give these paths back.

        Raises:
            SettingError: it cannot be created, or nothing can be written there.
        """
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            if not os.access(self.home, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise SettingError(
                "CHAT_APP_HOME",
                f"Nothing can be written in {self.home} ({error.strerror or error}).",
                advice="Set the environment variable CHAT_APP_HOME to a folder that you may write to.",
            ) from error
        return self

    @property
    def runs(self) -> Path:
        """The folder of runs, with one folder for each training run."""
        return self.home / "runs"

    @property
    def models(self) -> Path:
        """The folder of imported models, with one folder for each."""
        return self.home / "models"

    def open_cache(self, kind: str) -> Cache:
        """The disk cache of a kind of data.

        Args:
            kind: "material" for conversations as they were read, "rows" for tokenized datasets, "sources"
                for memorization indexes.
        """
        return Cache(self.home / "cache" / kind, CACHE_BYTES, self.keep_seconds)

    @property
    def assets(self) -> Path:
        """The folder of shipped assets, such as the starter model and the logo."""
        return find_shipped("assets")

    @property
    def starter(self) -> Path:
        """The folder of the shipped model."""
        return self.assets / "starter"

    @property
    def samples(self) -> Path:
        """The folder of shipped sample conversations."""
        return find_shipped("sample_data")
