"""Models in processes of their own: each holds one model and its engine, so that no fault in it reaches the app.

`child` is what runs there; `process`, `model` and `manager` are the app's side, which imports neither torch nor
transformers.
"""

__all__ = ["manager"]
