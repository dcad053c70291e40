"""The scopes that an API key needs for a route. Endpoints declare them; others are closed to limited keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from modelyard.api.middleware.body_intake import MAX_SMALL_BODY_BYTES, SmallBody
from modelyard.api.request_context import RequestContext
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.open_paths import OPEN_PATHS, is_ui_path
from modelyard.config import Scope
from modelyard.errors import PermissionDenied

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


def needs(scope: Scope | None, *, all_models: bool = False) -> Callable[[_Endpoint], _Endpoint]:
    """Mark an endpoint: a key needs ``scope`` and, if ``all_models`` is set, must not be limited to some models.

    Args:
        scope: the scope; None: any, and the endpoint itself checks what else the key may do.
        all_models: whether the key must not be limited to some models.
    """

    def mark(endpoint: _Endpoint) -> _Endpoint:
        endpoint.needs = (scope, all_models)  # type: ignore[attr-defined]
        return endpoint

    return mark


def takes_body(max_bytes: int) -> Callable[[_Endpoint], _Endpoint]:
    """Mark an endpoint that is no ``JsonRoute``: its body has at most ``max_bytes``, which it reads itself."""

    def mark(endpoint: _Endpoint) -> _Endpoint:
        endpoint.max_body_bytes = max_bytes  # type: ignore[attr-defined]
        return endpoint

    return mark


def needed(route: Route) -> tuple[Scope | None, bool]:
    """Return the scope that ``route`` needs, and whether it needs all models: as marked, else by the kind of route."""
    marked: tuple[Scope | None, bool] | None = getattr(route.endpoint, "needs", None)
    if marked is not None:
        return marked
    if isinstance(route, JsonRoute):
        return "inference", False
    only_reads = (route.methods or set()) <= {"GET", "HEAD"}
    return ("read", False) if only_reads else ("admin", True)


def authorize_route(route: BaseRoute) -> None:
    """Make ``route`` refuse keys that lack its scope, unless its path is open."""
    if isinstance(route, Route) and route.path not in OPEN_PATHS and not is_ui_path(route.path):
        route.app = _RequireScope(route.app, *needed(route))
        if not isinstance(route, JsonRoute):
            max_bytes: int = getattr(route.endpoint, "max_body_bytes", MAX_SMALL_BODY_BYTES)
            route.app = SmallBody(route.app, max_bytes)


class _RequireScope:
    """Raises PermissionDenied for a key that lacks ``scope``, or any if it is None; requests without a key pass."""

    def __init__(self, app: ASGIApp, scope: Scope | None, all_models: bool) -> None:
        self._app = app
        self._scope, self._all_models = scope, all_models

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        key = RequestContext.of(scope).key
        if key is not None and not (self._scope in key.scopes if self._scope else key.scopes):
            allowed = ", ".join(sorted(key.scopes)) or "nothing"
            wanted = f"the scope '{self._scope}'" if self._scope else "a scope"
            raise PermissionDenied(f"This API key may not do that: it needs {wanted}, and has: {allowed}.")
        if key is not None and self._all_models and key.models is not None:
            raise PermissionDenied("This API key may not do that: it concerns all models, and the key may use some.")
        await self._app(scope, receive, send)
