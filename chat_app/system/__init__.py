"""The machine and the operating system: CPU features, memory, a disk cache, the installation, progress callbacks.

Nothing in it is about models or conversations.
"""

__all__ = ["cpu", "disk_cache", "installation", "memory", "progress"]
