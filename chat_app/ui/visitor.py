"""Identification of visitors: locally all browsers are one visitor; on a shared server each has a signed name."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

import gradio as gr

from chat_app.errors import UserError
from chat_app.runs.files import write_text
from chat_app.services import LOCAL_VISITOR, Services

STORAGE_KEY = "chat_app.visitor"
_NAME_BYTES = 18


class Visitors:
    """Issues and verifies the tokens that tell the visitors of a shared server apart.

    A token is a random name and its HMAC signature, so a visitor cannot pass as another one.

    Args:
        services: whose home keeps the key, so that a restart knows its visitors again.
    """

    def __init__(self, services: Services):
        self._is_shared = services.rules.is_shared
        self._key = _read_key(services.paths.home / "visitors.key") if self._is_shared else b""

    def issue(self, token: object) -> str:
        """Return the visitor's token if its signature is valid, else a new one."""
        if not self._is_shared:
            return ""
        if self._check_token(token) is not None:
            return str(token)
        name = secrets.token_urlsafe(_NAME_BYTES)
        return f"{name}.{self._sign(name)}"

    def identify(self, token: object, request: gr.Request | None) -> str:
        """Return the name of the visitor who calls.

        Raises:
            UserError: the token is missing or its signature is wrong.
        """
        if not self._is_shared:
            return LOCAL_VISITOR
        if request is not None and getattr(request, "username", None):
            return f"user:{request.username}"
        name = self._check_token(token)
        if name is None:
            raise UserError("This page is out of date.", advice="Load it again.")
        return name

    def _check_token(self, token: object) -> str | None:
        if not isinstance(token, str) or len(token) > 200:
            return None
        name, _, signature = token.partition(".")
        right = hmac.compare_digest(signature.encode("utf-8", "replace"), self._sign(name).encode())
        return name if name and right else None

    def _sign(self, name: str) -> str:
        return hmac.new(self._key, name.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _read_key(path: Path) -> bytes:
    """Read the signing key from the home folder, where it is created once; only this program's user may read it."""
    try:
        return bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, secrets.token_hex(32) + "\n")
        os.chmod(path, 0o600)
        return bytes.fromhex(path.read_text(encoding="ascii").strip())
