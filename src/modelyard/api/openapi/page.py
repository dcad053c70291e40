"""GET /docs: a page with Swagger UI, whose files come from a package and not from the web."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Coroutine
from importlib import resources
from typing import Any

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response

from modelyard.api.serving.open_paths import PAGE_FILES


def page_routes() -> APIRouter:
    """Return the routes of the page and its files. They contain nothing about this server, and need no key."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def page() -> HTMLResponse:
        """Return the page. Its URLs are relative, so that it works behind a proxy that adds a prefix."""
        shown = get_swagger_ui_html(
            openapi_url="openapi.json",
            title="Modelyard",
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon-32x32.png",
            swagger_ui_parameters={"persistAuthorization": True, "docExpansion": "list", "validatorUrl": None},
        )
        shown.headers["content-security-policy"] = page_policy(bytes(shown.body).decode())
        shown.headers["x-frame-options"] = "DENY"
        return shown

    for name, media_type in PAGE_FILES.items():
        router.add_api_route(f"/docs/{name}", _part(name, media_type))
    return router


def page_policy(html: str) -> str:
    """Return the Content-Security-Policy: the page's own files, its inline script, and inline styles of Swagger UI."""
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    run = " ".join(["'self'", *(f"'sha256-{digest}'" for digest in digests)])
    return (
        f"default-src 'none'; script-src {run}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _part(name: str, media_type: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    """Return the endpoint of a file of Swagger UI."""

    async def part() -> Response:
        content = (resources.files("fastapi_swagger") / "resources" / name).read_bytes()
        return Response(content, media_type=media_type, headers={"cache-control": "public, max-age=86400"})

    return part
