"""What the machine offers: its processor, its memory, child processes and a cache on its disk; where the program is
installed; and how long work reports its progress.

Knows no model and no conversation.
"""

__all__ = ["child_job", "child_process", "cpu", "disk_cache", "installation", "memory", "progress", "sent_errors"]
