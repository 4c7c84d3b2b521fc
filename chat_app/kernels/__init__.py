"""Compiled CPU kernels for GPT-2: packed weights, matrix products, attention and the decode step.

`packed_weights` is the door; `layout` has the constants, and whether a model can be packed. What is in memory and how
threads work together is drawn in this folder's README. Sequences, tokens and models are not known here.
"""

__all__ = ["layout", "packed_weights"]
