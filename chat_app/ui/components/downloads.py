"""Files for the browser to keep: where they lie until it has them, and the scripts that hand them over."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any


def make_download_path(button: Any, name: str) -> Path:
    """A new file of that name in the page's cache, where nobody can guess it. Its folder is made."""
    path = Path(button.GRADIO_CACHE) / secrets.token_hex(16) / name
    path.parent.mkdir(parents=True)
    return path


def make_click_script(elem_id: str) -> str:
    """The script that presses a hidden download button, once the page has learned what it gives."""
    return f"() => setTimeout(() => document.querySelector('#{elem_id}')?.click(), 400)"


def make_save_script(name: str, kind: str) -> str:
    """The script that saves a text as a file of that name."""
    return f"""(text) => {{
  if (!text) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {{ type: "{kind}" }}));
  link.download = "{name}";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}}"""
