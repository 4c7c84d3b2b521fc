"""The switch CHAT_APP_KERNELS: whether compiled kernels are used, and in what memory.

on         (the default) kernels compute, torch until they are compiled
off        torch computes everything
guarded    kernels compute in memory that ends in protected pages, as `guarded_memory` says: for tests
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Literal, TypeAlias

from chat_app.errors import SettingError

SWITCH = "CHAT_APP_KERNELS"
KernelMode: TypeAlias = Literal["on", "off", "guarded"]
_MODES: Mapping[str, KernelMode] = {"on": "on", "off": "off", "guarded": "guarded"}


def kernel_mode() -> KernelMode:
    """The mode that the environment asks for.

    Raises:
        SettingError: the variable has an unknown value.
    """
    value = os.environ.get(SWITCH) or "on"
    if value not in _MODES:
        advice = "Leave it out, or set it to on, off or guarded."
        raise SettingError(SWITCH, f"'{value[:40]}' is no value of this environment variable.", advice=advice)
    return _MODES[value]


def kernels_are_on() -> bool:
    """Whether compiled kernels may be used.

    Raises:
        SettingError: CHAT_APP_KERNELS has an unknown value.
    """
    return kernel_mode() != "off"


@cache
def memory_is_guarded() -> bool:
    """Whether buffers of kernels are guarded in this process. It is read once: a buffer may not change its kind."""
    return kernel_mode() == "guarded"
