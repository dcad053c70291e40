"""Paths that need no API key: health, the documentation page, and the page at /ui."""

from __future__ import annotations

from typing import Final

PAGE_FILES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}

PAGE_PATHS: Final = frozenset({"/openapi.json", "/docs", *(f"/docs/{name}" for name in PAGE_FILES)})

# Beside health, pages that are the same on every server: a browser sends no key for a page.
OPEN_PATHS = frozenset({"/", "/health", "/v1/health", "/health/live", "/health/ready"}) | PAGE_PATHS


def is_ui_path(path: str) -> bool:
    """Whether a path is that of the page at /ui, or below it. It needs no key on a server that has the page."""
    return path == "/ui" or path.startswith("/ui/")
