"""The web page: one file a tab, and `page.build_page`, which puts them together."""
