"""The server: the page, the HTTP API and the guard before both, behind one port.

Its command-line flags are in `flags`, its life from start to end in `run`. No model and no training is in here.
"""

__all__ = ["flags", "run"]
