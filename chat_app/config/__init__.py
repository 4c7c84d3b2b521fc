"""Settings of loading, sampling and training as dataclasses with validated fields, and the locations on disk.

Command-line flags and page controls are generated from these dataclasses.
"""

__all__ = ["fields", "loading", "paths", "sampling", "training"]
