"""Compiled CPU kernels for GPT-2: packed weights, matrix products, attention and the decode step.

Others use `packed_weights`, and `layout` to ask whether a model can be packed. The README in this folder explains the
layout.
"""

__all__ = ["layout", "packed_weights"]
