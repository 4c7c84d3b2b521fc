"""Building models of transformers, one at a time.

While transformers builds a model, it changes global settings of the process and restores them afterwards: torch's
default dtype, and the initialization functions. If two models were built at once, the second would save the changed
settings of the first, and restore those for good.
"""

from __future__ import annotations

import threading
from functools import cache


@cache
def building() -> threading.RLock:
    """Held by the thread that builds a model: `with building(): ...`."""
    return threading.RLock()
