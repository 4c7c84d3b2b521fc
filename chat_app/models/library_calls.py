"""Calls into transformers and bitsandbytes, whose exceptions become a ModelError with one sentence."""

from __future__ import annotations

import logging
from typing import Any

import torch

from chat_app.errors import ChatAppError, ModelError

LOGGER = logging.getLogger(__name__)


def call_library(call: Any, *arguments: Any, **settings: Any) -> Any:
    """Call a library; whatever it raises becomes a ModelError."""
    try:
        return call(*arguments, **settings)
    except ChatAppError:
        raise
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ModelError("The memory is not enough for this model.", advice="Choose 8-bit or 4-bit.") from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # The files may be anything, and libraries of this size raise anything about them.
        LOGGER.info("loading failed", exc_info=True)
        line = str(error).strip().split("\n")[0][:300]
        raise ModelError(f"The model cannot be loaded: {line or type(error).__name__}") from error
