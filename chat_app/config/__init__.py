"""Every setting with its default, its limits and its explanation, and the paths on disk.

Command-line flags and page controls are derived from these dataclasses.
"""

__all__ = ["fields", "loading", "paths", "sampling", "training"]
