"""The scopes that an API key needs for a route. Endpoints declare them; others are closed to limited keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from modelyard.api.middleware.body_intake import SmallBody
from modelyard.api.request_context import RequestContext
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.open_paths import OPEN_PATHS
from modelyard.config import Scope
from modelyard.errors import PermissionDenied

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


def needs(scope: Scope, *, all_models: bool = False) -> Callable[[_Endpoint], _Endpoint]:
    """Mark an endpoint: a key needs ``scope`` and, if ``all_models`` is set, must not be limited to some models."""

    def mark(endpoint: _Endpoint) -> _Endpoint:
        endpoint.needs = (scope, all_models)  # type: ignore[attr-defined]
        return endpoint

    return mark


def needed(route: Route) -> tuple[Scope, bool]:
    """Return the scope that ``route`` needs, and whether it needs all models: as marked, else by the kind of route."""
    marked: tuple[Scope, bool] | None = getattr(route.endpoint, "needs", None)
    if marked is not None:
        return marked
    if isinstance(route, JsonRoute):
        return "inference", False
    only_reads = (route.methods or set()) <= {"GET", "HEAD"}
    return ("read", False) if only_reads else ("admin", True)


def authorize_route(route: BaseRoute) -> None:
    """Make ``route`` refuse keys that lack its scope, unless its path is open."""
    if isinstance(route, Route) and route.path not in OPEN_PATHS:
        route.app = _RequireScope(route.app, *needed(route))
        if not isinstance(route, JsonRoute):
            route.app = SmallBody(route.app)


class _RequireScope:
    """Raises PermissionDenied for a key that lacks ``scope``; requests without a key pass."""

    def __init__(self, app: ASGIApp, scope: Scope, all_models: bool) -> None:
        self._app = app
        self._scope, self._all_models = scope, all_models

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        key = RequestContext.of(scope).key
        if key is not None and self._scope not in key.scopes:
            allowed = ", ".join(sorted(key.scopes)) or "nothing"
            raise PermissionDenied(
                f"This API key may not do that: it needs the scope '{self._scope}', and has: {allowed}."
            )
        if key is not None and self._all_models and key.models is not None:
            raise PermissionDenied("This API key may not do that: it concerns all models, and the key may use some.")
        await self._app(scope, receive, send)
