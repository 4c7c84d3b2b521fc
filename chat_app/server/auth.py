"""Authentication: the password file, constant-time comparison, and a throttle against guessing.

Of HTTP it knows only the value of an Authorization header.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from chat_app.errors import DataError, UserError

KEY_VARIABLE = "CHAT_APP_API_KEY"
_MAX_FILE_BYTES = 2**20


class AuthenticationError(UserError):
    """No name and password, or wrong ones (HTTP 401)."""

    http_status = 401


class TooManyAttemptsError(UserError):
    """Too many wrong passwords (HTTP 429). `seconds` is how long to wait."""

    http_status = 429

    def __init__(self, seconds: float):
        self.seconds = seconds
        super().__init__("There were too many wrong tries.", advice=f"Wait {int(seconds) + 1} s.")


class Throttle:
    """Counts failed log-ins by address and by name: exponential backoff after the first few.

    Args:
        free: failures without a wait.
        longest: the longest wait in seconds.
        most: how many addresses and names are remembered; the least recent are forgotten first.
    """

    FORGET_SECONDS = 3600.0

    def __init__(
        self, free: int = 5, longest: float = 300.0, most: int = 10_000, clock: Callable[[], float] = time.monotonic
    ):
        self._free, self._longest, self._max_streams, self._clock = free, longest, most, clock
        self._lock = threading.Lock()
        self._tries: OrderedDict[str, tuple[int, float]] = OrderedDict()  # How many, and the time of the last one.

    def wait(self, key: str) -> float:
        """Seconds until the next attempt is accepted; 0: now."""
        with self._lock:
            count, last = self._tries.get(key, (0, 0.0))
        if count < self._free:
            return 0.0
        pause = min(2.0 ** min(count - self._free + 1, 30), self._longest)
        return max(last + pause - self._clock(), 0.0)

    def failed(self, key: str) -> None:
        """Count a failed attempt."""
        with self._lock:
            now = self._clock()
            count, last = self._tries.pop(key, (0, now))
            self._tries[key] = (1 if now - last > self.FORGET_SECONDS else count + 1, now)
            while len(self._tries) > self._max_streams:
                self._tries.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """Forget the failures of a key after a correct attempt."""
        with self._lock:
            self._tries.pop(key, None)


class Accounts:
    """Who may log in to the page, and with which credentials programs may use the API.

    Args:
        passwords: by name; empty where no log-in is needed.
        key: the API key for programs, or None.
        throttle: counts failed attempts.
    """

    def __init__(self, passwords: Mapping[str, str], key: str | None, throttle: Throttle):
        self._passwords = {name: _digest(password) for name, password in passwords.items()}
        self._key = _digest(key) if key else None
        self._throttle = throttle

    @property
    def is_page_open(self) -> bool:
        """Whether the page needs no log-in."""
        return not self._passwords

    @property
    def is_api_open(self) -> bool:
        """Whether programs need no credentials."""
        return not self._passwords and self._key is None

    def log_in(self, name: str, password: str) -> bool:
        """Whether the password is the name's. A failure counts against the name.

        Raises:
            TooManyAttemptsError: for this name.
        """
        who = f"name {name[:200]}"
        wait = self._throttle.wait(who)
        if wait > 0:
            raise TooManyAttemptsError(wait)
        is_right = self._matches(name, password)
        (self._throttle.succeeded if is_right else self._throttle.failed)(who)
        return is_right

    def check_program(self, authorization: str | None, address: str) -> None:
        """Whether an Authorization header lets a program in: Basic with a name and password, or Bearer with the key or
        with `name:password`.

        Raises:
            AuthenticationError: it does not.
            TooManyAttemptsError: from this address, or for this name.
        """
        if self.is_api_open:
            return
        wait = self._throttle.wait(address)
        if wait > 0:
            raise TooManyAttemptsError(wait)
        scheme, _, value = (authorization or "").strip().partition(" ")
        if self._verify(scheme.lower(), value.strip()):
            return self._throttle.succeeded(address)
        if value:
            self._throttle.failed(address)
        raise AuthenticationError(
            "This server wants a name and a password, or a key.",
            advice="Send `Authorization: Bearer KEY`, or Basic with name and password.",
        )

    def _verify(self, scheme: str, value: str) -> bool:
        if scheme == "bearer" and self._key is not None and hmac.compare_digest(_digest(value), self._key):
            return True
        if scheme == "basic":
            try:
                value = base64.b64decode(value, validate=True).decode()
            except (binascii.Error, UnicodeDecodeError, ValueError):
                return False
        elif scheme != "bearer":
            return False
        name, separator, password = value.partition(":")
        return bool(separator) and self.log_in(name, password)

    def _matches(self, name: str, password: str) -> bool:
        known = self._passwords.get(name)
        # An unknown name takes as long as a wrong password, so that timing does not tell names.
        is_same = hmac.compare_digest(_digest(password), known if known is not None else _digest(""))
        return is_same and known is not None


def read_passwords(path: Path) -> dict[str, str]:
    """Read a password file with `name:password` on each line; blank lines and those that begin with # are skipped.

    Returns:
        The password of each name.

    Raises:
        DataError: the file cannot be read, a line is wrong (with its number), or it has no names.
    """
    advice = "Write one `name:password` a line."
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
        lines = content.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"The file {path} of --auth-file cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"The file {path} of --auth-file is not UTF-8 text.", advice=advice) from error
    if len(content) > _MAX_FILE_BYTES:
        raise DataError(f"The file {path} of --auth-file is too long.", advice=advice)
    passwords: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, separator, password = (part.strip() for part in text.partition(":"))
        where = f"{path}, line {number}"
        if not separator or not name or not password:
            raise DataError("This is no name and password.", where=where, advice=advice)
        if name in passwords:
            raise DataError(f"The name '{name}' occurs twice.", where=where, advice="Remove one of them.")
        passwords[name] = password
    if not passwords:
        raise DataError(f"Nobody is in the file {path} of --auth-file.", advice=advice)
    _warn_if_open(path)
    return passwords


def _warn_if_open(path: Path) -> None:
    if os.name == "posix" and path.stat().st_mode & 0o004:
        print(
            f"chat_app: everybody on this computer can read {path} and the passwords in it. "
            f"Run chmod 600 {path} to keep it to yourself.",
            file=sys.stderr,
        )


def _digest(text: str) -> bytes:
    """SHA-256: digests have equal lengths, so that comparing them does not tell a password's length."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
