"""What a model is said to need is what it really takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chat_app.config.loading import LoadConfig
from chat_app.config.paths import Paths
from chat_app.inference.loaded_model import load
from chat_app.models.resolver import ModelFiles, estimate_memory, find
from chat_app.models.weight_size import loaded_bytes

pytestmark = pytest.mark.dependencies


def bytes_of(files: ModelFiles, precision: str, device: str = "cpu") -> int:
    return loaded_bytes(files.config, files.parameters, precision, device)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "8-bit"])
@pytest.mark.parametrize("width", [64, 192])
def test_what_is_predicted_is_what_the_loaded_model_takes(
    make_folder: Callable[..., Path], tmp_path: Path, precision: str, width: int
) -> None:
    folder, paths = make_folder(width=width), Paths(tmp_path / "home")
    files = find(str(folder), paths)
    loaded = load(str(folder), LoadConfig(precision=precision, device="cpu"), paths)
    try:
        assert loaded.precision == precision
        share = loaded.memory_bytes / bytes_of(files, precision)
        # Those of 16 bits may turn out to need 12 only.
        assert (0.75 if precision == "bfloat16" else 0.97) < share < 1.03
    finally:
        loaded.engine.close()


def test_the_starter_in_eight_bits_has_its_embedding_beside_its_head() -> None:
    files = find("starter", Paths.default())
    found = bytes_of(files, "8-bit")
    assert found > files.parameters + 2 * files.vocabulary * files.width
    assert found < bytes_of(files, "bfloat16") < bytes_of(files, "float32")


def test_while_it_is_loaded_a_model_is_there_as_it_was_read_too(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """Unless the file holds the numbers as they are read, which then stay in the file."""
    files = replace(find(str(make_folder(width=64)), Paths(tmp_path / "home")), parameters=10**9)
    for precision, bytes_in_file, read in (("8-bit", 4, 0), ("8-bit", 2, 4), ("bfloat16", 2, 0), ("bfloat16", 4, 2)):
        found: Any = estimate_memory(replace(files, weight_bytes=bytes_in_file * 10**9), precision)
        assert found // 10**9 == read
    assert bytes_of(files, "8-bit", "cuda:0") > 10**9  # By bitsandbytes.
