"""The web page, built with Gradio: a package for each tab, shared components, and `page.build_page`, which joins them.

A handler of the page checks what the browser sent, calls the product through `services`, and returns updates. There is
no model, training or file format in here, and no HTTP but for the stream of a reply in `chat.streaming`.
"""

__all__ = ["page"]
