"""What the machine offers: its processor, its memory, and a cache on its disk.

Knows no model and no conversation.
"""

__all__ = ["cpu", "disk_cache", "memory"]
