"""Model cards of models that were trained here: the base model, the data, the settings and the validation loss."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Literal

import yaml

from chat_app.config.paths import STARTER
from chat_app.config.training import TrainConfig
from chat_app.errors import ChatAppError, SettingError
from chat_app.runs.compare import best_evaluation, describe_best, loss_before
from chat_app.runs.diagnosis import newest_answers
from chat_app.runs.run import Run
from chat_app.runs.used_settings import try_used_settings


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
        ("validation loss", tested),
        ("method", config.method),
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
    """A Markdown table of names and values, without those that have no value. Values are escaped."""
    said = [(name, str(value).replace("\\", "\\\\").replace("|", "\\|")) for name, value in rows if value != ""]
    lines = "".join(f"| {name} | {' '.join(value.split())} |\n" for name, value in said)
    return f"| | |\n| --- | --- |\n{lines}"


PICTURE = "curves.svg"
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,39}")


# What a reader needs to judge or repeat the training; the rest concerns this computer.
_SETTINGS = (
    "method", "epochs", "max_steps", "learning_rate", "batch_size", "accumulation", "learn", "optimizer", "schedule",
    "warmup", "weight_decay", "dropout", "clip", "window", "seed",
)  # fmt: skip


def export_card(
    run: Run | None,
    *,
    licence: str = "",
    as_: Literal["merged", "adapter"] = "merged",
    has_picture: bool = False,
    config: Mapping[str, Any] | None = None,
) -> str:
    """README.md of an export.

    Args:
        run: where the numbers come from; without one the card says that nothing is recorded.
        licence: as the Hub spells it; empty leaves it to be filled in.
        config: the model's config.json, for its size.

    Raises:
        SettingError: the licence is no name.
    """
    licence = licence.strip()
    if licence and not _LICENCE.fullmatch(licence):
        raise SettingError(
            "licence", f"'{licence[:60]}' is no licence's name.", advice="Write for example mit or cc-by-4.0."
        )
    started_from = _started_from(run)
    front: dict[str, Any] = {
        "library_name": "peft" if as_ == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["chat", "conversational", *([str(config["model_type"])] if config and "model_type" in config else [])],
    }
    if licence:
        front["license"] = licence.lower()
    if "/" in started_from:
        front["base_model"] = started_from
    parts = [f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n", "# A chat model trained with chat_app\n"]
    parts += _how_it_was_made(run, started_from, config or {}, has_picture)
    parts += [_USE_ADAPTER if as_ == "adapter" else _USE, _licence_words(licence)]
    return "\n".join(parts)


def public_name(name: str) -> str:
    """A model's name without paths of this computer: a name on the Hub stays, of a path only the end is left."""
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute() or name.startswith((".", "~")):
        return PureWindowsPath(name).name or PurePosixPath(name).name
    return name if name.count("/") <= 1 and "\\" not in name else PureWindowsPath(name).name


def _started_from(run: Run | None) -> str:
    if run is None:
        return ""
    try:
        return public_name(run.config().model)
    except ChatAppError:
        return ""


def _how_it_was_made(run: Run | None, started_from: str, config: Mapping[str, Any], has_picture: bool) -> list[str]:
    if run is None:
        return ["How it was trained is not recorded.\n"]
    about, metrics = run.about(), run.metrics()
    best, before, answers = best_evaluation(metrics), loss_before(metrics), newest_answers(metrics)
    shape = [config.get(name) for name in ("n_layer", "n_embd", "n_positions")]
    rows = [
        ("started from", "the starter of chat_app" if started_from == STARTER else started_from or "not recorded"),
        ("architecture", "{} layers, {} wide, window {}".format(*shape) if all(shape) else ""),
        ("format of conversations", about.get("format", "")),
        ("conversations learned", _count(about.get("train_conversations"))),
        ("conversations kept aside for validation", _count(about.get("valid_conversations"))),
        ("steps", _count(run.state().step)),
        ("validation loss before", f"{before:.4f} nats a token" if before is not None else ""),
        ("best validation loss", describe_best(metrics) or "not measured"),
        ("questions kept aside answered right", f"{answers[0]} of {answers[1]}" if answers else ""),
        ("perplexity there", f"{math.exp(min(best[1], 700)):.2f}" if best else ""),
        ("computed in", about.get("precision", "")),
    ]
    parts = [table(rows)]
    if has_picture:
        parts.append(f"![Loss on what it learned and on what was kept aside]({PICTURE})\n")
    parts += ["## Settings\n", table(_settings(run))]
    return parts


def _settings(run: Run) -> list[tuple[str, Any]]:
    used = try_used_settings(run)
    values = {name: used[name] for name in _SETTINGS if name in used}
    return [(name, f"{value:g}" if isinstance(value, float) else value) for name, value in values.items()]


def _count(number: Any) -> str:
    return f"{number:,}" if isinstance(number, int) else ""


def _licence_words(licence: str) -> str:
    named = f"{licence}. " if licence else "To be filled in by whoever publishes this model. "
    return f"## Licence\n\n{named}The model it started from and the conversations have licences of their own.\n"


_USE = """## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where this file lies, or the model's name on the Hub
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
prompt = tokenizer.apply_chat_template(
    [{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
ids = model.generate(**prompt, max_new_tokens=64)
print(tokenizer.decode(ids[0, prompt["input_ids"].shape[1]:], skip_special_tokens=True))
```

Or with chat_app: `python -m chat_app chat --model FOLDER`. Formats that a chat template cannot express are in
`chat_format.json` only.
"""


_USE_ADAPTER = """## Use

This is an adapter: peft lays it over the model it was trained on, which `adapter_config.json` names. With chat_app:
`python -m chat_app chat --model FOLDER`.
"""
