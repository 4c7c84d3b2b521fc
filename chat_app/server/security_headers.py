"""The headers that tell a browser what pages of this server may do."""

from __future__ import annotations

from chat_app.config.server import ServerRules


def _framers(rules: ServerRules, origins: tuple[str, ...]) -> str:
    spaces = ("https://huggingface.co", "https://*.huggingface.co", "https://*.hf.space") if rules.on_space else ()
    return " ".join(("frame-ancestors 'self'", *spaces, *origins))


def security_headers(rules: ServerRules, origins: tuple[str, ...]) -> dict[str, str]:
    """Headers of every response. Gradio's page has inline scripts and styles, and compiles some at run time."""
    policy = (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "media-src 'self' data: blob:; worker-src 'self' blob:; connect-src 'self' data: blob:; "
        f"object-src 'none'; base-uri 'self'; form-action 'self'; {_framers(rules, origins)}"
    )
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), payment=(), usb=()",
    }


def docs_policy(rules: ServerRules, origins: tuple[str, ...]) -> str:
    """The page of the HTTP API: Swagger UI, whose start is a script in the page; nothing of it comes from outside."""
    return (
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        f"img-src 'self' data:; object-src 'none'; base-uri 'self'; {_framers(rules, origins)}"
    )
