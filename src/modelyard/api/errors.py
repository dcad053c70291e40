"""Every failure leaves the server as OpenAI's error object, with an honest status."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from modelyard.errors import LONGEST_RETRY_AFTER_S, InvalidRequest, ModelyardError

logger = logging.getLogger(__name__)


def error_object(error: ModelyardError) -> dict[str, Any]:
    """OpenAI's error object: message, type, param, code."""
    return {"message": str(error), "type": error.type, "param": error.param, "code": error.code}


def error_body(error: ModelyardError) -> bytes:
    """The JSON body, also the data of an error frame in a stream."""
    return orjson.dumps({"error": error_object(error)})


def error_response(error: ModelyardError) -> Response:
    """The answer for a request that failed before its answer began.

    Retry-After stays within what OpenAI's client still obeys.
    """
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(min(error.retry_after_s, LONGEST_RETRY_AFTER_S))
    if error.status == 507:
        # OpenAI's clients would try again otherwise, as after every error of the server's.
        headers["x-should-retry"] = "false"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(error_body(error), error.status, headers, media_type="application/json")


def invalid_body(error: RequestValidationError, content_type: str) -> InvalidRequest:
    """The first thing that is wrong with a body, in words that name the field."""
    problem = error.errors()[0]
    if problem["type"] == "json_invalid":
        return InvalidRequest(f"The body is not valid JSON: {problem['ctx']['error']} (at byte {problem['loc'][-1]}).")
    param = field_path(problem["loc"][1:])
    if not param:
        sent = f"It was sent as '{content_type}'." if content_type else "It was sent with no Content-Type."
        return InvalidRequest(f"The body must be a JSON object, with Content-Type: application/json. {sent}")
    return InvalidRequest(f"'{param}': {problem['msg']}", param)


def field_path(location: Sequence[int | str]) -> str:
    """A place in a body as ``messages[0].content``. Names of union branches, which pydantic adds, are left out."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part.islower() and part not in _BRANCHES:
            path += f".{part}" if path else part
    return path


_BRANCHES = frozenset({"str", "int", "float", "bool", "list", "tuple", "dict"})


def install(app: FastAPI) -> None:
    """Answer all exceptions of ``app`` in OpenAI's shape."""

    async def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, ModelyardError)
        return error_response(error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(invalid_body(error, request.headers.get("content-type", "")))

    async def not_served(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, ModelyardError):
            # FastAPI wraps whatever happens while it reads a body.
            return error_response(error.__cause__)
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
        message = f"{request.method} {request.url.path}: {error.detail}"
        body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
        return Response(orjson.dumps(body), error.status_code, error.headers, media_type="application/json")

    async def unexpected(_request: Request, error: Exception) -> Response:
        number = uuid.uuid4().hex
        logger.error("Internal error %s", number, exc_info=error)
        message = f"Internal error. The server's log has the details under {number}."
        body = {"error": {"message": message, "type": "server_error", "param": None, "code": "internal_error"}}
        return Response(orjson.dumps(body), 500, media_type="application/json")

    app.add_exception_handler(ModelyardError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, not_served)
    app.add_exception_handler(Exception, unexpected)
