"""GET /docs: the description as a page, with Swagger UI from a package: nothing is fetched from elsewhere."""

from __future__ import annotations

from importlib import resources
from typing import Final

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

_FILES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


def page_routes() -> APIRouter:
    """The page and what it loads. The same on every server, and about none: open without a key."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def page() -> HTMLResponse:
        """The page. Its addresses are relative, so that it works behind a proxy that adds a prefix."""
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title="Modelyard",
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon-32x32.png",
            swagger_ui_parameters={"persistAuthorization": True, "docExpansion": "list", "validatorUrl": None},
        )

    @router.get("/docs/{name}")
    async def part(name: str) -> Response:
        """A part of Swagger UI."""
        if name not in _FILES:
            raise HTTPException(404, "Not Found")
        content = (resources.files("fastapi_swagger") / "resources" / name).read_bytes()
        return Response(content, media_type=_FILES[name], headers={"cache-control": "public, max-age=86400"})

    return router
