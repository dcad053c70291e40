"""Errors as HTTP: all exceptions become responses in the dialect of the path."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from modelyard.api.errors.anthropic import error_body as anthropic_body
from modelyard.api.errors.ollama import error_body as ollama_body
from modelyard.api.request_context import RequestContext
from modelyard.errors import (
    MAX_RETRY_AFTER_S,
    HarmfulRequest,
    InvalidRequest,
    ModelNotFound,
    ModelyardError,
    OutOfMemory,
)

logger = logging.getLogger(__name__)

MAX_NAME_CHARS = 200
"""Characters of what a client sent, such as the name of a field, that an error repeats."""


def error_object(error: ModelyardError) -> dict[str, Any]:
    """Return OpenAI's error object: message, type, param, code."""
    return {"message": error.wire_message, "type": error.type, "param": error.param, "code": error.code}


def error_body(error: ModelyardError) -> bytes:
    """Return the body of an error response in OpenAI's dialect, which is also the data of an error frame."""
    return orjson.dumps({"error": error_object(error)})


class NotServed(ModelyardError):
    """An error of the web framework, such as for a path that does not exist."""

    type = "invalid_request_error"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)
        self.message = message
        self.status = status  # type: ignore[misc]
        self.code = {404: "not_found", 405: "method_not_allowed"}.get(status, "invalid_request")  # type: ignore[misc]

    def __str__(self) -> str:
        return self.message


class InternalError(ModelyardError):
    """A bug in the server. The log has the exception under the id of the request."""

    def __init__(self, request_id: str) -> None:
        super().__init__(request_id)
        self.request_id = request_id

    def __str__(self) -> str:
        return f"Internal error. The server's log has the details under {self.request_id}."


Shape = Callable[[ModelyardError], bytes]
"""Writes an error as the JSON body of one dialect."""

# By prefix of the path; the longest prefix counts.
_SHAPES: Mapping[str, Shape] = MappingProxyType({"/": error_body, "/v1/messages": anthropic_body, "/api/": ollama_body})


def shape_of(path: str) -> Shape:
    """Return the shape of errors on ``path``."""
    return _SHAPES[max((prefix for prefix in _SHAPES if path.startswith(prefix)), key=len, default="/")]


def error_response(error: ModelyardError, path: str) -> Response:
    """Return the response for a request to ``path`` that failed before its answer began.

    Retry-After is capped, because OpenAI's client ignores longer times.
    """
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(min(error.retry_after_s, MAX_RETRY_AFTER_S))
    if error.status in (507, 508) or isinstance(error, HarmfulRequest):
        # OpenAI's clients would otherwise retry, as after every status of 500 or more.
        headers["x-should-retry"] = "false"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return _ErrorResponse(error, shape_of(path)(error), headers)


class _ErrorResponse(Response):
    """An error as a response, which notes the error in the context of its request."""

    def __init__(self, error: ModelyardError, body: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(body, error.status, headers, media_type="application/json")
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (context := RequestContext.find(scope)) is not None:
            context.error_code, context.error_param = self._error.code, self._error.param
            context.unknown_model = self._error.model if isinstance(self._error, ModelNotFound) else None
        await super().__call__(scope, receive, send)


def invalid_body(error: RequestValidationError, content_type: str) -> InvalidRequest:
    """Return the first problem of a body as an error that names the field."""
    problem = error.errors()[0]
    if problem["type"] == "json_invalid":
        return InvalidRequest(f"The body is not valid JSON: {problem['ctx']['error']} (at byte {problem['loc'][-1]}).")
    param = field_path(problem["loc"][1:])
    if not param:
        sent = f"as '{content_type[:MAX_NAME_CHARS]}'" if content_type else "with no Content-Type"
        return InvalidRequest(
            f"The body must be a JSON object, with Content-Type: application/json. It was sent {sent}."
        )
    return InvalidRequest(f"'{param}': {problem['msg']}", param)


def field_path(location: Sequence[int | str]) -> str:
    """Return a location in a body as ``messages[0].content``, without the names of union branches from pydantic."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif len(part) <= MAX_NAME_CHARS and part.isidentifier() and part.islower() and part not in _BRANCHES:
            path += f".{part}" if path else part
    return path


_BRANCHES = frozenset({"str", "int", "float", "bool", "list", "tuple", "dict", "word", "named", "allowed"})


def suggested_path(path: str, served: Collection[str]) -> str | None:
    """Return the served path for a base URL that has "/v1" too often or not at all; None if there is none."""
    bare = re.sub("/+", "/", path)
    while bare.startswith("/v1/"):
        bare = bare.removeprefix("/v1")
    return next((each for each in (f"/v1{bare}", bare) if each != path and each in served), None)


def install(app: FastAPI) -> None:
    """Make ``app`` answer all exceptions in the dialect of the path."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, ModelyardError)
        return error_response(error, request.url.path)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(invalid_body(error, request.headers.get("content-type", "")), request.url.path)

    async def not_served(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, ModelyardError):
            # FastAPI wraps exceptions that are raised while it reads a body.
            return error_response(error.__cause__, request.url.path)
        message = f"{request.method} {request.url.path}: {error.detail}"
        served = {route.path for route in request.app.routes}
        if error.status_code == 404 and (suggestion := suggested_path(request.url.path, served)):
            message += (
                f". Did you mean {suggestion}? The base URL ends in /v1 for OpenAI's clients, "
                "and without it for Anthropic's and Ollama's."
            )
        response = error_response(NotServed(message, error.status_code), request.url.path)
        response.headers.update(error.headers or {})
        return response

    async def unexpected(request: Request, error: Exception) -> Response:
        request_id = RequestContext.of(request.scope).request_id
        logger.error("Internal error in request %s", request_id, exc_info=error)
        return error_response(InternalError(request_id), request.url.path)

    async def out_of_memory(request: Request, _: Exception) -> Response:
        return error_response(OutOfMemory(), request.url.path)

    app.add_exception_handler(ModelyardError, refused)
    app.add_exception_handler(MemoryError, out_of_memory)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, not_served)
    app.add_exception_handler(Exception, unexpected)
