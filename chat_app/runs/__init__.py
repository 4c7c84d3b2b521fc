"""The folder of a training run and what can be told from it: state, catalogue, comparison, loss plot, diagnosis.

Nothing here trains.
"""

__all__ = [
    *("catalog", "checkpoints", "compare", "data_manifest", "diagnosis", "files", "history", "loss_plot", "run"),
    *("state", "used_settings"),
]
