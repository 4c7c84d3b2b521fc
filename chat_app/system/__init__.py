"""The machine and the operating system: CPU, memory, child processes, disk cache, installation, progress callbacks.

Nothing in it is about models or conversations.
"""

__all__ = [
    "child_job", "child_process", "cpu", "disk_cache", "disk_errors", "installation", "memory", "progress",
    "sent_errors",
]  # fmt: skip
