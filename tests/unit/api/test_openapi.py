"""The description of the HTTP surface is complete, and readable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from http_reference import render_http_api
from pydantic import TypeAdapter

from modelyard.api.app import create_app
from modelyard.api.errors.rendering import InternalError
from modelyard.api.openapi.document import openapi_document
from modelyard.api.openapi.errors import EXAMPLES, REASONS, codes
from modelyard.api.openapi.field_docs import ANSWER_FIELDS, REQUEST_FIELDS
from modelyard.api.openapi.operations import OPERATIONS
from modelyard.config import AccessKey, validate_config
from modelyard.config.key_rules import digest_of
from modelyard.errors import (
    AnswerInvalid,
    ForkedProcess,
    LlamaCppUnusable,
    MissingExtra,
    ModelyardError,
    PortUnavailable,
    ServerUnusable,
    UnusableModel,
    WrongEventLoop,
)
from modelyard.yard.yard import Yard

# They end a start or a command, or what a program does in its own process, and are no answer of a server: a load that
# fails is one of its own.
NEVER_SENT = (
    *(AnswerInvalid, ForkedProcess, LlamaCppUnusable, MissingExtra, WrongEventLoop),
    *(PortUnavailable, ServerUnusable, UnusableModel),
)


def an_app(keys: tuple[AccessKey, ...] = ()) -> FastAPI:
    return create_app(Yard(validate_config({"models": [{"model_id": "m.gguf", "load": "on-demand"}]})), keys)


DOCUMENT: dict[str, Any] = openapi_document(an_app())
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS_SERVED = {
    (method, path): operation for path, methods in DOCUMENT["paths"].items() for method, operation in methods.items()
}


def references(value: Any) -> Iterator[str]:
    match value:
        case {"$ref": str(target)}:
            yield target
        case dict():
            for each in value.values():
                yield from references(each)
        case list():
            for each in value:
                yield from references(each)


def test_every_endpoint_is_described_and_nothing_else() -> None:
    assert set(OPERATIONS_SERVED) == set(OPERATIONS)


# Their answer is their status.
WITHOUT_CONTENT = {
    ("post", "/api/copy"),
    ("delete", "/api/delete"),
    ("post", "/api/blobs/{digest}"),
    ("get", "/api/blobs/{digest}"),
}


@pytest.mark.parametrize("endpoint", OPERATIONS_SERVED, ids=" ".join)
def test_an_endpoint_says_what_it_does_takes_answers_and_how_it_fails(endpoint: tuple[str, str]) -> None:
    operation = OPERATIONS_SERVED[endpoint]
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    assert operation["responses"]["200"]["content"] or endpoint in WITHOUT_CONTENT
    assert {"403", "500"} <= set(operation["responses"])
    assert "422" not in operation["responses"]
    if "requestBody" in operation:
        (body,) = operation["requestBody"]["content"].values()
        assert "example" in body
        assert {"400", "413"} <= set(operation["responses"])
    for content in operation["responses"]["200"]["content"].values():
        assert content.get("schema", {}).get("$ref") or content["example"]


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for operation in OPERATIONS_SERVED.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_object_and_field_is_explained(name: str) -> None:
    assert SCHEMAS[name]["description"]
    unexplained = [field for field, said in SCHEMAS[name].get("properties", {}).items() if not said["description"]]
    assert not unexplained


def test_every_field_description_is_used() -> None:
    fields = {(name, field) for name, schema in SCHEMAS.items() for field in schema.get("properties", {})}
    used = {field for _, field in fields} | {f"{name}.{field}" for name, field in fields}
    assert set(REQUEST_FIELDS) | set(ANSWER_FIELDS) <= used


def test_schemas_are_those_of_the_wire_and_not_of_pydantic() -> None:
    written = str(SCHEMAS)
    assert "modelyard__" not in written
    assert "'title':" not in written


def test_what_is_referred_to_is_there() -> None:
    for target in references(DOCUMENT):
        found: Any = DOCUMENT
        for part in target.removeprefix("#/").split("/"):
            found = found[part]


def test_what_a_field_also_takes_is_in_its_schema() -> None:
    properties = SCHEMAS["ChatCompletionRequest"]["properties"]
    assert {"type": "string"} in properties["messages"]["anyOf"]
    assert {"type": "string"} in properties["keep_alive"]["anyOf"]
    assert properties["max_tokens"]["type"] == ["integer", "null"]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_the_status_of_every_error_is_declared(error: ModelyardError) -> None:
    assert error.status in REASONS or error.status == 405


def test_every_error_is_listed() -> None:
    def kinds(kind: type[ModelyardError]) -> Iterator[type[ModelyardError]]:
        yield kind
        for each in kind.__subclasses__():
            yield from kinds(each)

    sent = {
        (kind.status, kind.code)
        for kind in kinds(ModelyardError)
        if not issubclass(kind, NEVER_SENT) and kind.__module__.startswith("modelyard")
    }
    listed = {(status, code) for status, code, _, _ in codes()}
    assert sent <= listed
    assert (InternalError("x").status, InternalError("x").code) in listed


@pytest.mark.parametrize("endpoint", [key for key, said in OPERATIONS.items() if said.example], ids=" ".join)
def test_the_example_of_a_body_is_one(endpoint: tuple[str, str]) -> None:
    (route,) = [
        route
        for route in an_app().routes
        if getattr(route, "path_format", "") == endpoint[1] and endpoint[0].upper() in route.methods  # type: ignore[attr-defined]
    ]
    example: Any = OPERATIONS[endpoint].example
    if isinstance(example, dict):
        # A form has the contents of the file that its example names.
        example = {key: value.encode() if key == "file" else value for key, value in example.items()}
    TypeAdapter(route.body_field.field_info.annotation).validate_python(example)  # type: ignore[attr-defined]


async def test_the_page_and_all_that_it_loads_come_from_the_server_without_a_key() -> None:
    app = an_app((AccessKey("k", digest_of(b"secret"), None, frozenset()),))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        page = (await client.get("/docs")).text
        loaded = re.findall(r"""(?:src|href|url)(?:=|: )["']([^"']+)["']""", page)
        assert len(loaded) == 4
        for address in loaded:
            assert not re.match(r"https?:|//", address)
            answer = await client.get(f"/{address}")
            assert answer.status_code == 200
            assert answer.content
        assert (await client.get("/v1/models")).status_code == 401


def test_the_page_of_the_docs_tells_every_endpoint_and_object() -> None:
    page = render_http_api()
    for method, path in OPERATIONS:
        assert f"### {method.upper()} {path}\n" in page
    for name in re.findall(r"\]\(#(\w+)\)", page):
        assert re.search(rf"^### {name}$", page, re.IGNORECASE | re.MULTILINE), name
