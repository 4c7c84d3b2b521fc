"""The web page: a package for each tab, and `page.build_page`, which puts them together."""

__all__ = ["page"]
