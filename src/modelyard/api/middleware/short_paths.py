"""Paths without ``/v1``: clients whose base URL lacks it reach the same endpoints.

The path is changed before anything reads it: dialects of errors, scopes of keys and labels of metrics are those of the
endpoint.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

_PREFIX: Final = "/v1/"


def short_segments(paths: Iterable[str]) -> frozenset[str]:
    """Return the first segments of paths below ``/v1`` that no path outside of it begins with.

    Args:
        paths: the patterns of all routes, such as ``/v1/models/{model_id:path}``.
    """
    below, beside = set(), set()
    for path in paths:
        if path.startswith(_PREFIX):
            below.add(path.split("/")[2])
        else:
            beside.add(path.split("/")[1])
    return frozenset(below - beside)


class ShortPaths:
    """Puts ``/v1`` before paths that begin with one of ``segments``."""

    def __init__(self, app: ASGIApp, segments: Collection[str]) -> None:
        self._app, self._segments = app, segments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, under its full path."""
        if scope["type"] == "http":
            root: str = scope.get("root_path", "")
            path: str = scope["path"].removeprefix(root)
            if path[1:].partition("/")[0] in self._segments:
                full = f"{root}/v1{path}"
                scope = {**scope, "path": full, "raw_path": full.encode("utf-8", "surrogateescape")}
        await self._app(scope, receive, send)
