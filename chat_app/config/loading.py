"""Settings of loading a model: precision, device and chat format."""

from __future__ import annotations

from dataclasses import dataclass

from chat_app.config.fields import AUTOMATIC, check, setting
from chat_app.tokenization.chat_formats import FORMAT_NAMES

EXACT = "exact"
PRECISIONS = (AUTOMATIC, EXACT, "float32", "bfloat16", "float16", "8-bit", "4-bit")


@dataclass(frozen=True)
class LoadConfig:
    """Settings of loading a model.

    Raises:
        SettingError: a value is not allowed.
    """

    precision: str = setting(
        AUTOMATIC,
        "How numbers are stored: automatic is the fastest way whose loss is negligible, which is measured for 8-bit; "
        "exact is as the file is; 8-bit and 4-bit save memory.",
        choices=PRECISIONS,
        label="Load as",
    )
    device: str = setting(AUTOMATIC, "Where the model runs: automatic takes the GPU if there is one.", label="Device")
    format: str = setting(
        AUTOMATIC,
        "How conversations are laid out for this model: automatic recognises it.",
        choices=(AUTOMATIC, *FORMAT_NAMES),
        label="Format",
    )

    def __post_init__(self) -> None:
        check(self)
