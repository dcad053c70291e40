"""Paths without ``/v1``: clients whose base URL lacks it reach the same endpoints.

The path is changed before anything reads it: dialects of errors, scopes of keys and labels of metrics are those of the
endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

_PREFIX: Final = "/v1/"


class ShortPaths:
    """Puts ``/v1`` before paths that no route has, if routes below ``/v1`` begin with their first segment.

    Args:
        app: the application.
        paths: the patterns of all routes, such as ``/v1/models/{model_id:path}``.
    """

    def __init__(self, app: ASGIApp, paths: Iterable[str]) -> None:
        self._app = app
        patterns = list(paths)
        self._segments = {path.split("/")[2] for path in patterns if path.startswith(_PREFIX)}
        self._others = [compile_path(path)[0] for path in patterns if not path.startswith(_PREFIX)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, under its full path."""
        if scope["type"] == "http":
            root: str = scope.get("root_path", "")
            path: str = scope["path"].removeprefix(root)
            if self._is_short(path):
                full = f"{root}/v1{path}"
                scope = {**scope, "path": full, "raw_path": full.encode("utf-8", "surrogateescape")}
        await self._app(scope, receive, send)

    def _is_short(self, path: str) -> bool:
        return path[1:].partition("/")[0] in self._segments and not any(other.match(path) for other in self._others)
