"""GPT-2's own forward pass: weights, attention, the compiled decoder, CUDA graphs.

Other architectures run through transformers, in `chat_app.inference.model_runner`.
"""

__all__ = ["eight_bit_loss", "model_runner", "weights"]
