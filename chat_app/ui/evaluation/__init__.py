"""The Evaluate tab: metrics of models, the blind test of two, and replies copied from the training data."""

__all__ = ["tab"]
