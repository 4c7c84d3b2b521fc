"""Telling that a disk is full or cannot be written to, in whatever words a library says it."""

from __future__ import annotations

import errno
import os

from chat_app.errors import ChatAppError

FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
# The messages of libraries that write files themselves: torch (when a write, or only the end of it, fails),
# safetensors and Arrow.
_FULL_SIGNS = (
    *("no space left", "storagefull", "quota exceeded", "pytorchstreamwriter failed", "file write failed"),
    "unexpected pos",
)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no space left on the disk, or no more allowed to this user."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    text = str(error).lower()
    return any(sign in text for sign in _FULL_SIGNS)


def explain_disk_error(error: BaseException) -> ChatAppError | None:
    """The sentence for a disk that is full or cannot be written to; None for any other error."""
    if isinstance(error, ChatAppError):
        return None
    if is_disk_full(error):
        return ChatAppError(
            "The disk is full.", advice="Free some space and resume: the run goes on from its last whole checkpoint."
        )
    if isinstance(error, OSError) and error.errno in _REFUSED:
        path = str(error.filename) if error.filename else "the file"
        return ChatAppError(
            f"It cannot be written or read ({os.strerror(error.errno)}).",
            where=path,
            advice="Check who may write there, or set CHAT_APP_HOME to another folder.",
        )
    return None
