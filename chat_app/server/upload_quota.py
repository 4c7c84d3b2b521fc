"""How much may be uploaded by an address and in all within the hours that uploads are kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Upload:
    time: float
    address: str
    bytes: int


class Quota:
    """How much may be uploaded within the hours that uploads are kept.

    A request counts as at least a megabyte, so that a flood of tiny files ends too.

    Args:
        each: bytes an address.
        whole: bytes in all.
        seconds: how long an upload counts.
    """

    LEAST = 2**20

    def __init__(self, each: int, whole: int, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._each, self._whole, self._seconds, self._clock = each, whole, seconds, clock
        self._uploads: deque[Upload] = deque()

    def reserve(self, address: str, size: int) -> Upload | None:
        """Take room for an upload before it is read; None if there is not enough."""
        now = self._clock()
        while self._uploads and self._uploads[0].time < now - self._seconds:
            self._uploads.popleft()
        size = max(size, self.LEAST)
        of_this = sum(one.bytes for one in self._uploads if one.address == address)
        if of_this + size > self._each or sum(one.bytes for one in self._uploads) + size > self._whole:
            return None
        upload = Upload(now, address, size)
        self._uploads.append(upload)
        return upload

    def settle(self, upload: Upload, received: int) -> None:
        """An upload ended: it counts as what came."""
        upload.bytes = max(received, self.LEAST)
