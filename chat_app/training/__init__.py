"""Training: from conversations and settings to a run with its checkpoints and its model.

`pipeline` is the way through it, `trainer` the loop, `job_queue` runs it in a child process. The run folder itself is
in `chat_app.runs`.
"""

__all__ = [
    "collator", "corrections_run", "corrections_store", "decisions", "distributed", "follow_up_runs", "inputs",
    "job_queue", "loss", "pipeline", "prepare", "pretraining", "pretraining_plan", "recipe", "sample_prompts",
    "small_sets", "trainer",
]  # fmt: skip
