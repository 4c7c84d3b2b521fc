"""Generating replies: the engine with its KV caches, scheduler and sampling, and the models it serves.

Weights are read from disk in `chat_app.models`, the compiled kernels are in `chat_app.kernels`.
"""

__all__ = ["backend", "generation", "loaded_model", "quoting", "worker"]
