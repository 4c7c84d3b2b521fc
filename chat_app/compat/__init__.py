"""Compatibility with the package convmodel: the same classes and calls, so that its users change only the import."""

__all__ = ["convmodel"]
