"""The Evaluate tab: metrics of models, the blind test of two, and replies copied from the training data.

The measuring itself is in `chat_app.evaluation`.
"""

__all__ = ["tab"]
