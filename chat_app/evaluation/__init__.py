"""How good a model is: metrics, two models compared, blind tests, and how much it memorized.

The verdict on a run's loss curve is in `chat_app.runs.diagnosis`.
"""

__all__ = [
    "blind_test",
    "comparison",
    "evaluate",
    "evaluation",
    "jobs",
    "memorization",
    "runner",
    "segmentation",
    "selection",
]
