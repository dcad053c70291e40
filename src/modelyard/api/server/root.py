"""GET /: for browsers the page at /ui, or where it was not built a list of the models; ``OK`` for everything else.

Health checks and Ollama's clients ask for that.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from typing import Final

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from modelyard.api.services import Services
from modelyard.system.quantities import size_text
from modelyard.version import __version__
from modelyard.yard.requests.context import current_caller
from modelyard.yard.stats.status import ModelStatus

MAX_SHOWN: Final = 200

_STYLE: Final = (
    ":root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;max-width:48rem;margin:3rem auto;"
    "padding:0 1rem}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem 1rem .25rem 0;"
    "vertical-align:top}td:first-child{overflow-wrap:anywhere}"
)

_STYLE_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_HEADERS: Final = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-frame-options": "DENY",
    "vary": "accept",
}

router = APIRouter()


@router.get("/", include_in_schema=False)
async def root(http: HttpRequest) -> Response:
    """Send clients that ask for HTML to the page, and return ``OK`` to others. It needs no key, and loads nothing."""
    if "text/html" not in http.headers.get("accept", ""):
        return PlainTextResponse("OK", headers={"vary": "accept"})
    if http.app.state.has_page:
        # Relative, for proxies that add a prefix.
        return RedirectResponse("ui/", 307, {"vary": "accept"})
    models = Services.of(http).yard.models() if current_caller().may("read") else None
    return HTMLResponse(root_page(models), headers=_HEADERS)


def root_page(models: Sequence[ModelStatus] | None) -> str:
    """Return the page as HTML, without scripts; its links are relative, for proxies that add a prefix.

    Args:
        models: the models that the client may see; None: it may not see any without a key.
    """
    if models is None:
        shown = "<p>Which models there are is shown to clients with an API key: <code>GET /v1/models</code>.</p>"
    else:
        rows = "".join(map(_row, models[:MAX_SHOWN]))
        more = f"<p>and {len(models) - MAX_SHOWN} more</p>" if len(models) > MAX_SHOWN else ""
        head = "<tr><th>Model</th><th>Status</th><th>Quantisation</th><th>Memory</th></tr>"
        shown = f"<table>{head}{rows}</table>{more}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Modelyard</title><style>{_STYLE}</style></head><body><h1>Modelyard {__version__}</h1>"
        f'<p>This server is running. <a href="docs">Documentation of its API</a> · '
        f'<a href="v1/models">models as JSON</a></p>{shown}</body></html>\n'
    )


def _row(model: ModelStatus) -> str:
    status: str = "parked" if model.is_parked else model.status
    if model.progress is not None:
        status = f"{model.progress.step} {model.progress.fraction:.0%}"
    memory = size_text(model.resident_bytes) if model.resident_bytes else ""
    cells = (model.id, f"{status}, failed" if model.reason else status, model.quantization or "", memory)
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
