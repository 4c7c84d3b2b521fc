"""The page that describes the HTTP API and tries it out, at /docs. Everything it needs comes from this server."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

DOCS = "/docs"
_FILES = f"{DOCS}/files"
# Swagger UI would ask a server of its makers to judge the description.
_SETTINGS = {"validatorUrl": None, "tryItOutEnabled": True, "displayRequestDuration": True}


def add_docs(app: FastAPI) -> None:
    """Put the page into an application that was made with `docs_url=None`."""
    app.mount(_FILES, StaticFiles(packages=[("fastapi_swagger", "resources")]), name="docs")

    def docs() -> HTMLResponse:
        # Relative addresses: they hold behind whatever stands in front of this server.
        files = _FILES.lstrip("/")
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{app.title}: HTTP API",
            swagger_js_url=f"{files}/swagger-ui-bundle.js",
            swagger_css_url=f"{files}/swagger-ui.css",
            swagger_favicon_url=f"{files}/favicon-32x32.png",
            swagger_ui_parameters=_SETTINGS,
        )

    app.add_api_route(DOCS, docs, include_in_schema=False)
