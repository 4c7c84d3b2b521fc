"""The progress of a training in a terminal or a log: a bar for the steps, a line for each evaluation.

Apart from `cli.progress` because it imports transformers, which the other commands must not load.
"""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from chat_app.runs.run import Run


class TrainingProgressBar(TrainerCallback):
    """A callback of the Trainer that reads the run folder, as the page does."""

    def __init__(self, run: Run):
        self._run = run
        self._bar: Any = None
        self._shown = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Draw the bar if standard error is a terminal."""
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            unit="step",
            file=sys.stderr,
            disable=not sys.stderr.isatty(),
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Advance the bar by one step."""
        self._bar.update(state.global_step - self._bar.n)

    def on_evaluate(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Print one line with what was measured since the last one."""
        lines = self._run.metrics()
        new, self._shown = lines[self._shown :], len(lines)
        values: dict[str, float] = {}
        for line in new:
            values.update(line)
        parts = [f"step {state.global_step}/{state.max_steps}"]
        for name, label in (
            ("train_loss", "training loss"),
            ("valid_loss", "validation loss"),
            ("valid_perplexity", "perplexity"),
            ("tokens_per_second", "tokens/s"),
        ):
            if name in values:
                parts.append(f"{label} {values[name]:.4g}")
        tqdm.write(", ".join(parts), file=sys.stderr)

    def on_train_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        """Leave the bar as it is."""
        self._bar.close()
