"""The document at /openapi.json: FastAPI's description of the routes, completed from ``operations``."""

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
from modelyard.config.key_rules import MAX_PRIORITY

TAGS: Final = {
    "OpenAI": "OpenAI's dialect, with the fields of mistral.rs.",
    "Anthropic": "Anthropic's dialect.",
    "Ollama": "Ollama's dialect.",
    "llama.cpp": "Endpoints of llama.cpp's server. /tokenize and /detokenize have the fields of vLLM, too.",
    "Rerank": "Rank documents by how well they answer a query, in the shape of Jina, Cohere and llama.cpp.",
    "Models": "Load and unload models, and watch their states.",
    "Tools": "The tools that the server runs, and the calls that wait for an approval.",
    "Server": "Configuration, health and metrics.",
}

_DESCRIPTION: Final = """\
A request names its model by id or alias; a request that names none goes to the default model.

If API keys are configured, a request carries one as `Authorization: Bearer <key>` or as `x-api-key`. Errors have the
shape of the dialect of the path. After a stream has started, an error is its last event.
"""

# Statuses of every endpoint; of endpoints that need a key; and of endpoints with a body.
_ALWAYS: Final = (403, 414, 431, 500)
_WITH_KEY: Final = (401, 429)
_WITH_BODY: Final = (400, 408, 413)

_HEADERS: Final = {
    "x-request-id": ("string", "The id of the request in the log: the client's own id if it sent one."),
    "server-timing": ("string", "Milliseconds of `queue`, `load`, `prefill` and `decode`, as far as they are known."),
    "retry-after": ("integer", "Seconds after which to try again."),
}
_PARAMETERS: Final = {
    "prefer": (
        {"type": "string", "examples": ["wait=10"]},
        "`wait=N`: wait at most N seconds for the model; 0: not at all.",
    ),
    "x-priority": (
        {"type": "integer", "minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY},
        "Requests that wait for the same model are served in this order, the highest first.",
    ),
    "x-tools": (
        {"type": "string", "enum": ["on", "off"]},
        "`off`: the model gets no tools of the server. Only chats have any.",
    ),
}


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of ``app``."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary="Many language models behind one address.",
        description=_DESCRIPTION,
        routes=app.routes,
        tags=[{"name": name, "description": description} for name, description in TAGS.items()],
    )
    routes = list(_documented(app))
    references, schemas = schemas_of(_bodies(routes), _answers(routes))
    for route, method in routes:
        described = document["paths"][route.path_format][method]
        _complete(described, route, method, references)
        version, _, path = route.path[1:].partition("/")
        if version in ("v1", "v2") and f"/{path}" in document["paths"]:
            # The path without the version has the unsuffixed id.
            described["operationId"] += f"_{version}"
    document["security"] = [{}, {"bearer": []}, {"x-api-key": []}]
    document["components"] = {
        "schemas": dict(sorted(schemas.items())),
        "responses": dict(error_responses(references)),
        "headers": {
            name: {"description": description, "schema": {"type": kind}}
            for name, (kind, description) in _HEADERS.items()
        },
        "parameters": {
            name: {"name": name, "in": "header", "required": False, "description": description, "schema": schema}
            for name, (schema, description) in _PARAMETERS.items()
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
    """Return the description of an endpoint; endpoints without an entry only have a tag."""
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
    """Complete FastAPI's description of an operation, in place."""
    operation = operation_of(route, method)
    name = route.name if operation.tag != "Ollama" else f"ollama_{route.name}"
    described |= {"tags": [operation.tag], "operationId": name, "summary": route.name.replace("_", " ").capitalize()}
    described["description"] = described.get("description", "").replace("``", "`")
    for parameter in described.get("parameters", ()):
        parameter["schema"].pop("title", None)
    if isinstance(route, JsonRoute):
        in_path = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in route.param_convertors
        ]
        in_head = [{"$ref": f"#/components/parameters/{name}"} for name in _PARAMETERS]
        described["parameters"] = [*in_path, *in_head]
    body = _body(route)
    if body is not None:
        content: dict[str, Any] = {"schema": references[body]}
        if operation.example is not None:
            content["example"] = operation.example
        media_type = route.media_type if isinstance(route, JsonRoute) else "application/json"
        described["requestBody"] = {"required": True, "content": {media_type: content}}
    if operation.takes_file:
        described["requestBody"] = {"required": True, "content": {"application/octet-stream": {"example": "GGUF…"}}}
    described["responses"] = _responses(route, operation, references)
    if route.path in OPEN_PATHS:
        described["security"] = []


def _responses(route: APIRoute, operation: Operation, references: Mapping[type, Schema]) -> dict[str, Any]:
    statuses = {*_ALWAYS, *operation.fails}
    statuses |= set() if route.path in OPEN_PATHS else set(_WITH_KEY)
    statuses |= set() if route.body_field is None else set(_WITH_BODY)
    dialect = dialect_of(route.path)
    responses: dict[str, Any] = {"200": _success(route, operation, references)}
    for status in sorted(statuses):
        responses[str(status)] = {"$ref": f"#/components/responses/{response_name(dialect, status)}"}
    if operation.creates:
        responses["201"] = {**responses["200"], "description": "It was created."}
    if operation.unavailable is not None:
        content = {"application/json": {"schema": references[operation.unavailable]}}
        responses["503"] = {"description": "Unavailable at the moment, with the reason.", "content": content}
    return dict(sorted(responses.items()))


def _success(route: APIRoute, operation: Operation, references: Mapping[type, Schema]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.answer is not None:
        content["application/json"] = {"schema": references[operation.answer]}
    if operation.stream is not None:
        content[operation.stream.media_type] = {"example": operation.stream.example}
    if operation.text is not None:
        content[TEXT] = {"schema": {"type": "string"}, "example": operation.text}
    headers = ["x-request-id"] + (["server-timing"] if isinstance(route, JsonRoute) else [])
    return {
        "description": "The answer.",
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": content,
    }
