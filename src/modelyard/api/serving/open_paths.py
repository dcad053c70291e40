"""Paths that need no API key: health, and the documentation page."""

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
