"""Downloads: where a file lies until the browser has fetched it, and the scripts that start the download."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any


def make_download_path(button: Any, name: str) -> Path:
    """Create an unguessable folder in the page's cache and return the path of the file in it."""
    path = Path(button.GRADIO_CACHE) / secrets.token_hex(16) / name
    path.parent.mkdir(parents=True)
    return path


def make_click_script(elem_id: str) -> str:
    """Write the script that clicks a hidden download button after its update has reached the page."""
    return f"() => setTimeout(() => document.querySelector('#{elem_id}')?.click(), 400)"


def make_save_script(name: str, kind: str) -> str:
    """Write the script that saves a text as a file of that name."""
    return f"""(text) => {{
  if (!text) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {{ type: "{kind}" }}));
  link.download = "{name}";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}}"""
