"""GET /ui and what is below it: the page, which needs no key, because it contains nothing about this server.

Its data comes from the public API, with the keys that are entered in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from modelyard.api.ui.files import INDEX, PageFile

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; media-src 'self' blob: data:; manifest-src 'self'; worker-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""No inline code, no code or data of others, no frame around it."""

_HEADERS: Final = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}
_YEAR_S: Final = 365 * 24 * 3600
_NOT_BUILT: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Modelyard</title></head><body>'
    "<h1>The page was not built</h1><p>Everything else works. In Modelyard's folder, <code>make ui</code> builds the "
    "page; then restart the server.</p></body></html>\n"
)


def page_router(files: Mapping[str, PageFile]) -> APIRouter:
    """Return the routes of the page.

    Args:
        files: its files; none: it was not built, and its address says how to.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/ui")
    async def enter() -> Response:
        """Redirect to the folder of the page, in which its relative addresses are right, behind any prefix."""
        return RedirectResponse("ui/", 307, _HEADERS) if files else _not_built()

    @router.get("/ui/{path:path}")
    async def page_file(path: str, http: HttpRequest) -> Response:
        """Return a file of the page."""
        if not files and not path:
            return _not_built()
        file = files.get(path or INDEX)
        if file is None:
            raise HTTPException(404)
        return file_response(file, http.headers.get("accept-encoding", ""), http.headers.get("if-none-match", ""))

    return router


def file_response(file: PageFile, accept_encoding: str, if_none_match: str) -> Response:
    """Return a file in the best coding that the client takes, or 304 where the client has it already."""
    offered = accept_encoding.split(",")
    accepted = {entry.partition(";")[0].strip().lower() for entry in offered if not _is_refused(entry)}
    coding = next((coding for coding in file.compressed if coding in accepted), None)
    tag = f'"{file.tag}"' if coding is None else f'"{file.tag}-{coding}"'
    headers = {
        **_HEADERS,
        "etag": tag,
        "cache-control": f"public, max-age={_YEAR_S}, immutable" if file.is_immutable else "no-cache",
    }
    if file.compressed:
        headers["vary"] = "accept-encoding"
    known = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    if coding is not None:
        headers["content-encoding"] = coding
    return Response(file.content if coding is None else file.compressed[coding], 200, headers, file.media_type)


def _is_refused(entry: str) -> bool:
    """Whether an entry of Accept-Encoding refuses its coding, as ``br;q=0`` does."""
    weight = entry.partition(";")[2].strip().lower().removeprefix("q=")
    return bool(weight) and not weight.strip("0.")


def _not_built() -> Response:
    return HTMLResponse(_NOT_BUILT, 503, _HEADERS)
