"""The calls of convmodel, so that code written for it runs with another import."""

__all__ = ["convmodel"]
