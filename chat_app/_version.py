"""The version of the product: the only place that states it. The build backend reads this file without importing it."""

__version__ = "0.1.0"
