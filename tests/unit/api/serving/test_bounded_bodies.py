"""What a body may hold is bounded wherever each item that is wrong would cost an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from modelyard.api.anthropic.schema import CountRequest, MessagesRequest
from modelyard.api.llama_cpp.tokenize import DetokenizeBody, TokenizeBody
from modelyard.api.ollama.schema import ChatRequest, EmbedRequest, GenerateRequest
from modelyard.api.openai.responses.schema import ResponsesRequest
from modelyard.api.openai.schema import ChatCompletionRequest, CompletionRequest
from modelyard.api.rerank.routes import RerankBody

BODIES: tuple[type[BaseModel], ...] = (
    *(ChatCompletionRequest, CompletionRequest, ResponsesRequest, MessagesRequest, CountRequest, ChatRequest),
    *(GenerateRequest, EmbedRequest, RerankBody, TokenizeBody, DetokenizeBody),
)
MANY = 5000


def unbounded(schema: Any, path: str = "") -> Iterator[str]:
    """Where a core schema has lists that do not fail fast, or are not bounded, of items that are checked."""
    if isinstance(schema, dict):
        is_list = schema.get("type") == "list"
        is_checked = is_list and schema.get("items_schema", {}).get("type", "any") != "any"
        if is_checked and not (schema.get("fail_fast") and schema.get("max_length")):
            yield path
        # What a body is described with checks nothing.
        for key, value in schema.items():
            if key != "json_schema_input_schema":
                yield from unbounded(value, f"{path}/{key}")
    elif isinstance(schema, list | tuple):
        for number, value in enumerate(schema):
            yield from unbounded(value, f"{path}/{number}")


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_every_list_is_bounded_and_fails_with_its_first_error(body: type[BaseModel]) -> None:
    assert list(unbounded(TypeAdapter(body).core_schema)) == []


def error_count(body: type[BaseModel], sent: dict[str, Any]) -> int:
    try:
        body.model_validate(sent)
    except ValidationError as error:
        return error.error_count()
    return 0


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_field_full_of_nonsense_makes_few_errors(body: type[BaseModel]) -> None:
    nonsense = ([{}] * MANY, [1] * MANY, [[]] * MANY, {str(number): [] for number in range(MANY)})
    for name, field in body.model_fields.items():
        for value in nonsense:
            assert error_count(body, {field.alias or name: value}) < 20, name
