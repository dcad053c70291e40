"""The document at /openapi.json: what FastAPI knows of the routes, with what it does not know of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from modelyard.api.openapi.errors import ANTHROPIC, OLLAMA, OPENAI, dialect_of, error_responses, response_name
from modelyard.api.openapi.operations import OPERATIONS, TEXT, Operation
from modelyard.api.openapi.schemas import Schema, schemas_of
from modelyard.api.serving.json_route import JsonRoute
from modelyard.api.serving.open_paths import OPEN_PATHS
from modelyard.api.serving.wait_options import MAX_URGENT

TAGS: Final = {
    "OpenAI": "OpenAI's dialect, with the fields of mistral.rs.",
    "Anthropic": "Anthropic's dialect.",
    "Ollama": "Ollama's dialect.",
    "llama.cpp": "Endpoints of llama.cpp's server, two of them also under /v1, and with the fields of vLLM.",
    "Rerank": "Documents by how well they answer a query, in the shape of Jina, Cohere and llama.cpp.",
    "Models": "Load and unload models, and watch that.",
    "Server": "Configuration, health and metrics.",
}

_DESCRIPTION: Final = """\
A request names its model by id or alias; without one the default answers.

Where API keys are configured, a request carries one as `Authorization: Bearer <key>` or as `x-api-key`. Errors are in
the shape of the dialect that was spoken. An error after a stream has begun is a last piece of that stream.
"""

# Every endpoint may answer these: wrong name of the server, and a fault of ours; with a key, those below.
_ALWAYS: Final = (403, 414, 431, 500)
_WITH_KEY: Final = (401, 429)
_WITH_BODY: Final = (400, 408, 413)

_HEADERS: Final = {
    "x-request-id": ("string", "The request's id, as the log has it: the client's own, where it sent one."),
    "server-timing": ("string", "Milliseconds of `queue`, `load`, `prefill` and `decode`, as far as they are known."),
    "retry-after": ("integer", "After how many seconds to try again."),
}
_PARAMETERS: Final = {
    "prefer": (
        {"type": "string", "examples": ["wait=10"]},
        "`wait=N`: wait at most N seconds for the model; 0: not at all.",
    ),
    "x-priority": (
        {"type": "integer", "minimum": -MAX_URGENT, "maximum": MAX_URGENT},
        "Who waits for the same model is served in this order, the highest first.",
    ),
}


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The description of all that ``app`` serves, as OpenAPI 3.1."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary="Many language models behind one address.",
        description=_DESCRIPTION,
        routes=app.routes,
        tags=[{"name": name, "description": said} for name, said in TAGS.items()],
    )
    routes = list(_documented(app))
    references, schemas = schemas_of(_bodies(routes), _answers(routes))
    for route, method in routes:
        described = document["paths"][route.path_format][method]
        _complete(described, route, method, references)
        version, _, path = route.path[1:].partition("/")
        if version in ("v1", "v2") and f"/{path}" in document["paths"]:
            # It has its name without the version.
            described["operationId"] += f"_{version}"
    document["security"] = [{}, {"bearer": []}, {"x-api-key": []}]
    document["components"] = {
        "schemas": dict(sorted(schemas.items())),
        "responses": dict(error_responses(references)),
        "headers": {name: {"description": said, "schema": {"type": kind}} for name, (kind, said) in _HEADERS.items()},
        "parameters": {
            name: {"name": name, "in": "header", "required": False, "description": said, "schema": schema}
            for name, (schema, said) in _PARAMETERS.items()
        },
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
            "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key."},
        },
    }
    return document


def _documented(app: FastAPI) -> Iterator[tuple[APIRoute, str]]:
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            yield from ((route, method.lower()) for method in sorted(route.methods or ()))


def operation_of(route: APIRoute, method: str) -> Operation:
    """What is said of an endpoint."""
    return OPERATIONS.get((method, route.path_format)) or Operation(_tag(route.path_format))


def _tag(path: str) -> str:
    dialect = dialect_of(path)
    return dialect.name if dialect is not OPENAI or path.startswith("/v1/") else "Server"


def _body(route: APIRoute) -> type | None:
    body: type | None = None if route.body_field is None else route.body_field.field_info.annotation  # type: ignore[assignment]
    return body


def _bodies(routes: Sequence[tuple[APIRoute, str]]) -> list[type]:
    return list(dict.fromkeys(body for route, _ in routes if (body := _body(route)) is not None))


def _answers(routes: Sequence[tuple[APIRoute, str]]) -> list[type]:
    operations = [operation_of(route, method) for route, method in routes]
    answers = [answer for each in operations for answer in (each.answer, each.unavailable) if answer is not None]
    return list(dict.fromkeys([*answers, *(dialect.error for dialect in (OPENAI, ANTHROPIC, OLLAMA))]))


def _complete(described: dict[str, Any], route: APIRoute, method: str, references: Mapping[type, Schema]) -> None:
    """Say what FastAPI does not know of an operation."""
    said = operation_of(route, method)
    name = route.name if said.tag != "Ollama" else f"ollama_{route.name}"
    described |= {"tags": [said.tag], "operationId": name, "summary": route.name.replace("_", " ").capitalize()}
    described["description"] = described.get("description", "").replace("``", "`")
    for parameter in described.get("parameters", ()):
        parameter["schema"].pop("title", None)
    if isinstance(route, JsonRoute):
        described["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in _PARAMETERS]
    body = _body(route)
    if body is not None:
        content: dict[str, Any] = {"schema": references[body]}
        if said.example is not None:
            content["example"] = said.example
        media_type = route.media_type if isinstance(route, JsonRoute) else "application/json"
        described["requestBody"] = {"required": True, "content": {media_type: content}}
    described["responses"] = _responses(route, said, references)
    if route.path in OPEN_PATHS:
        described["security"] = []


def _responses(route: APIRoute, said: Operation, references: Mapping[type, Schema]) -> dict[str, Any]:
    statuses = {*_ALWAYS, *said.fails}
    statuses |= set() if route.path in OPEN_PATHS else set(_WITH_KEY)
    statuses |= set() if route.body_field is None else set(_WITH_BODY)
    dialect = dialect_of(route.path)
    responses: dict[str, Any] = {"200": _success(route, said, references)}
    for status in sorted(statuses):
        responses[str(status)] = {"$ref": f"#/components/responses/{response_name(dialect, status)}"}
    if said.unavailable is not None:
        content = {"application/json": {"schema": references[said.unavailable]}}
        responses["503"] = {"description": "Not at the moment, with the reason.", "content": content}
    return dict(sorted(responses.items()))


def _success(route: APIRoute, said: Operation, references: Mapping[type, Schema]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if said.answer is not None:
        content["application/json"] = {"schema": references[said.answer]}
    if said.stream is not None:
        content[said.stream.media_type] = {"example": said.stream.example}
    if said.text is not None:
        content[TEXT] = {"schema": {"type": "string"}, "example": said.text}
    headers = ["x-request-id"] + (["server-timing"] if isinstance(route, JsonRoute) else [])
    return {
        "description": "The answer.",
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": content,
    }
