"""Building models of transformers, one at a time.

While it builds one, transformers changes settings of the whole process and puts them back afterwards: torch's default
type, and the functions that fill tensors. Of two that are built at once the second would take the settings of the first
for those to put back, and leave them behind for good.
"""

from __future__ import annotations

import threading
from functools import cache


@cache
def building() -> threading.RLock:
    """Held by the thread that builds a model: `with building(): ...`."""
    return threading.RLock()
