"""The theme of the page and its launch arguments. No font or file is loaded from outside."""

from __future__ import annotations

from typing import Any

import gradio as gr

from chat_app.system.installation import find_shipped

ASSETS = find_shipped("assets")
TITLE = "chat_app"
FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
FONT_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
HEAD = '<meta name="color-scheme" content="light dark">'


def make_theme() -> gr.themes.Base:
    """Build the theme: paper and ink with a green accent, in light and dark mode."""
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        secondary_hue=gr.themes.colors.stone,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_lg,
        font=FONT,
        font_mono=FONT_MONO,
    )
    return theme.set(
        body_background_fill="#f7f5f1",
        body_background_fill_dark="#171614",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#211f1d",
        background_fill_secondary="#f7f5f1",
        background_fill_secondary_dark="#1b1a18",
        block_background_fill="#ffffff",
        block_background_fill_dark="#211f1d",
        block_border_color="#e6e1d8",
        block_border_color_dark="#35322e",
        border_color_primary="#ddd7cc",
        border_color_primary_dark="#3d3a35",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="#57534e",
        block_label_text_color_dark="#b8b2a8",
        block_title_text_weight="600",
        block_info_text_color="#6b665e",
        block_info_text_color_dark="#a39d93",
        body_text_color="#292524",
        body_text_color_dark="#ece8e1",
        input_border_width="1px",
        input_border_color="#ddd7cc",
        input_border_color_dark="#3d3a35",
        input_background_fill="#ffffff",
        input_background_fill_dark="#1b1a18",
        input_border_color_focus="#0d9488",
        input_border_color_focus_dark="#2dd4bf",
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_dark="#0f766e",
        button_primary_background_fill_hover_dark="#0d9488",
        button_primary_text_color="#ffffff",
        button_secondary_background_fill="#efebe4",
        button_secondary_background_fill_hover="#e4dfd5",
        button_secondary_background_fill_dark="#2f2c29",
        button_secondary_background_fill_hover_dark="#3d3a35",
        slider_color="#0f766e",
        slider_color_dark="#2dd4bf",
        layout_gap="16px",
    )


def page_arguments() -> dict[str, Any]:
    """Return the arguments of the look and of privacy for `launch` or `mount_gradio_app`."""
    return {
        "theme": make_theme(),
        "css_paths": [ASSETS / "style.css"],
        "head": HEAD,
        "favicon_path": str(ASSETS / "logo.svg"),
        "footer_links": [],
        "run_history": False,
        "ssr_mode": False,
        "show_error": False,
        "enable_monitoring": False,
        "allowed_paths": [],
        "pwa": False,
        "mcp_server": False,
    }
