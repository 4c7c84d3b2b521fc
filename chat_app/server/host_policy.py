"""Under which names this server may be called, and which pages may call it: the check of Host and Origin."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from chat_app.config.server import LOOPBACK, ServerRules

ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:\d{1,5})?")


class HostPolicy:
    """Which Host headers name this server, and which Origins may send requests that change something.

    A server that listens on every interface accepts any IP address: DNS rebinding needs a name.
    """

    def __init__(self, rules: ServerRules):
        named = [name.strip() for name in os.environ.get("SPACE_HOST", "").split(",")] if rules.on_space else []
        self.origins = tuple(origin.lower().rstrip("/") for origin in rules.origins)
        self._any_address = rules.host in ANY_ADDRESS
        self._names = {name.lower() for name in (*LOOPBACK, rules.host, *named) if name}
        self._names |= {urlsplit(origin).hostname or "" for origin in self.origins}

    def add_host(self, name: str) -> None:
        """Accept another name of this server, such as that of a public link."""
        self._names = {*self._names, name.lower()}

    def accepts_host(self, header: str | None) -> bool:
        """Whether a Host header names this server."""
        match = _HOST.fullmatch(header or "")
        if match is None:
            return False
        name = match[1].strip("[]").lower()
        return name in self._names or (self._any_address and _is_address(name))

    def accepts_origin(self, origin: str, host: str | None) -> bool:
        """Whether a page of that origin may send changes: the server's own page, or an allowed origin."""
        origin = origin.lower()
        scheme, separator, name = origin.partition("://")
        is_own = bool(separator) and scheme in ("http", "https") and name == (host or "").lower()
        return is_own or origin in self.origins


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
