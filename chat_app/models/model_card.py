"""The card of a model that was trained here: what it is, what it read, how well it does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chat_app.config.settings import TrainConfig


def run_card(config: TrainConfig, about: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """README.md of a run's model.

    Args:
        about: what the run knows of its data ("conversations", "validation", "files").
        facts: what the training knows at this moment ("step", "epoch", "valid_loss", "format").
    """
    files = ", ".join(str(name) for name in about.get("files", [])) or "not recorded"
    loss = facts.get("valid_loss")
    tested = f"{loss:.4f} nats a token" if isinstance(loss, float) and loss < float("inf") else "not measured"
    rows: list[tuple[str, Any]] = [
        ("started from", config.model),
        ("format", facts.get("format", "")),
        ("conversations learned", about.get("train_conversations", 0)),
        ("conversations kept aside for validation", about.get("valid_conversations", 0)),
        ("files", files),
        ("step, epoch", f"{facts.get('step', 0)}, {facts.get('epoch') or 0:.2f}"),
        ("best validation loss", tested),
        ("learning rate, batch size, seed", f"{config.learning_rate:g}, {config.batch_size}, {config.seed}"),
    ]
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [chat, gpt2, conversational]
---

# A chat model trained with chat_app

{table(rows)}
Talk to it: `python -m chat_app chat --model FOLDER`. The layout of its conversations is in `chat_format.json`, and as
a chat template in `tokenizer_config.json` where a template can express it.

Licence: to be filled in by whoever publishes this model; the starting model and the conversations have licences of
their own.
"""


def table(rows: Iterable[tuple[str, Any]]) -> str:
    """Names and values in Markdown; those without a value are left out. Nothing in a value ends its cell."""
    said = [(name, str(value).replace("\\", "\\\\").replace("|", "\\|")) for name, value in rows if value != ""]
    lines = "".join(f"| {name} | {' '.join(value.split())} |\n" for name, value in said)
    return f"| | |\n| --- | --- |\n{lines}"
