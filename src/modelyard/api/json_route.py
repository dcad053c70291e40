"""The route of an endpoint that much goes through: its body is read and checked without FastAPI's machinery."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from modelyard.errors import InvalidRequest

MOST_VALUES: Final = 1_000_000
"""Values in one body. An empty object has two bytes there and 64 in memory, and whoever looks at it takes its time."""

# Possessive, and with an end that may be missing: each byte is looked at once, whatever is sent.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
# Half of a character that is written as two escapes, without the other half; and as bytes that are no UTF-8, which
# Python takes all the same. An escaped backslash before one is found, too, and costs a second look.
_SURROGATE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
    rb"|\xed[\xa0-\xbf]"
)


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
        if not body or not _is_json(request.headers.get("content-type", "")):
            return body or None
        _check_values(body)
        return json.loads(_without_surrogates(json.loads(body)) if _SURROGATE.search(body) else body)
    except json.JSONDecodeError as error:
        problem = {"type": "json_invalid", "loc": ("body", error.pos), "ctx": {"error": error.msg}}
        raise RequestValidationError([problem]) from error
    except InvalidRequest:
        raise
    except Exception as error:
        raise HTTPException(400, "There was an error parsing the body") from error


def _without_surrogates(value: Any) -> str:
    """The same as JSON, with U+FFFD for halves of characters, which no encoding can write into an answer."""
    return json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _check_values(body: bytes) -> None:
    """Refuse a body of so many values that to read them holds up everybody else.

    Raises:
        InvalidRequest: it has more than MOST_VALUES.
    """
    # Commas and brackets of texts are looked for only where there are many of all.
    if _values(body) > MOST_VALUES and _values(_STRING.sub(b"", body)) > MOST_VALUES:
        raise InvalidRequest(f"The body has more than {MOST_VALUES:,} values in it. Send several requests.")


def _values(body: bytes) -> int:
    """How many values there are, at the most, in JSON whose strings have no commas or brackets."""
    return 1 + body.count(b",") + body.count(b"[") + body.count(b"{")


def _is_json(content_type: str) -> bool:
    kind, _, subkind = content_type.partition(";")[0].strip().lower().partition("/")
    return kind == "application" and (subkind == "json" or subkind.endswith("+json"))
