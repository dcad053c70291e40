"""The route of an endpoint that much goes through: its body is read and checked without FastAPI's machinery."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException


class JsonRoute(APIRoute):
    """Calls its endpoint with the body, checked, and the request; it has no other parameters.

    It is described and refuses as FastAPI's own, whose search for dependencies that are not there takes 0.07 ms.

    Attributes:
        media_type: of the body, for the description.
    """

    media_type = "application/json"

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What reads a request and answers it."""
        endpoint, field = self.endpoint, self.body_field
        assert field is not None

        async def handle(request: Request) -> Response:
            body, errors = field.validate(await self.read(request), {}, loc=("body",))
            if errors:
                raise RequestValidationError(errors)
            response: Response = await endpoint(body, request)
            return response

        return handle

    async def read(self, request: Request) -> Any:
        """What is in the body, to be checked."""
        return await _json_of(request)


async def _json_of(request: Request) -> Any:
    """The JSON in the body; what was sent, where it is not said to be JSON; None for nothing."""
    try:
        body = await request.body()
        return json.loads(body) if body and _is_json(request.headers.get("content-type", "")) else body or None
    except json.JSONDecodeError as error:
        problem = {"type": "json_invalid", "loc": ("body", error.pos), "ctx": {"error": error.msg}}
        raise RequestValidationError([problem]) from error
    except Exception as error:
        raise HTTPException(400, "There was an error parsing the body") from error


def _is_json(content_type: str) -> bool:
    kind, _, subkind = content_type.partition(";")[0].strip().lower().partition("/")
    return kind == "application" and (subkind == "json" or subkind.endswith("+json"))
