"""Settings of loading, sampling and training as dataclasses with validated fields, the locations on disk, and the rules
of a server.

Command-line flags and page controls are generated from these dataclasses.
"""

__all__ = ["fields", "loading", "paths", "sampling", "server", "training"]
