"""The folder of a training run and what can be told from it: state, catalogue, comparison, loss plot, diagnosis.

Nothing here trains.
"""

__all__ = ["catalog", "compare", "diagnosis", "files", "loss_plot", "run"]
