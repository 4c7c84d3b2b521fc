"""How much may be uploaded by an address and in all within the hours that uploads are kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Upload:
    """Bytes that an address uploaded, and when (monotonic seconds)."""

    time: float
    address: str
    bytes: int


class UploadQuota:
    """How much may be uploaded within the hours that uploads are kept.

    A request counts as at least a megabyte, so that a flood of tiny files ends too.

    Args:
        per_address: bytes that one address may upload.
        total: bytes of all addresses together.
        seconds: how long an upload counts.
    """

    MIN_BYTES = 2**20

    def __init__(self, per_address: int, total: int, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._per_address, self._total, self._seconds, self._clock = per_address, total, seconds, clock
        self._uploads: deque[Upload] = deque()

    def reserve(self, address: str, size: int) -> Upload | None:
        """Count an upload before its body is read; None if it would pass the quota."""
        now = self._clock()
        while self._uploads and self._uploads[0].time < now - self._seconds:
            self._uploads.popleft()
        size = max(size, self.MIN_BYTES)
        used_by_address = sum(upload.bytes for upload in self._uploads if upload.address == address)
        used = sum(upload.bytes for upload in self._uploads)
        if used_by_address + size > self._per_address or used + size > self._total:
            return None
        upload = Upload(now, address, size)
        self._uploads.append(upload)
        return upload

    def settle(self, upload: Upload, received: int) -> None:
        """Replace the reserved size of a finished upload by the bytes received."""
        upload.bytes = max(received, self.MIN_BYTES)
