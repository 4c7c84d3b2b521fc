"""Services whose model is in the tests' own process, so that a test can look into its engine."""

from __future__ import annotations

from typing import Any

from chat_app.inference.loaded_model import LoadedModel, load
from chat_app.services import Services


class OneModel:
    """In place of the model manager: one model, without a process of its own."""

    def __init__(self, services: Services):
        self._paths = services.paths
        self.current: LoadedModel | None = None
        services.models = self  # type: ignore[assignment]

    def use(self, name: str, config: Any) -> LoadedModel:
        """Load it."""
        self.current = load(name, config, self._paths)
        return self.current

    def here(self, name: str | None) -> LoadedModel | None:
        """There are no guests."""
        return self.current if name is None else None

    def close(self) -> None:
        """End it."""
        if self.current is not None:
            self.current.close()
            self.current = None
