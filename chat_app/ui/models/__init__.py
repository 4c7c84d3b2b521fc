"""The Models tab, and the choices of every model picker."""

__all__ = ["choices", "tab"]
