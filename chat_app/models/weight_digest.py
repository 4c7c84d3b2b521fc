"""A digest that tells the weights of one model from those of another, without reading all of them. Loads nothing."""

from __future__ import annotations

from pathlib import Path

from chat_app.models.validation import weight_files
from chat_app.system.disk_cache import digest_content

_SAMPLES, _SAMPLE_BYTES = 64, 1 << 14  # Training changes all weights, so it changes every sample.


def digest_weights(folder: Path) -> str:
    """A digest of a model's safetensors files: of their sizes, their headers and samples of what is in them.

    Raises:
        ModelError: there are no such files.
        OSError: one cannot be read.
    """
    parts: list[bytes | str | Path] = []
    for file in weight_files(folder):
        size = file.stat().st_size
        step = max((size - _SAMPLE_BYTES) // (_SAMPLES - 1), 1)
        parts.append(f"{file.name} {size}")
        with file.open("rb") as stream:
            for start in range(0, size, max(step, _SAMPLE_BYTES)):
                stream.seek(start)
                parts.append(stream.read(_SAMPLE_BYTES))
    return digest_content(parts)
