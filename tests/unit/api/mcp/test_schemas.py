"""The JSON schemas of the arguments of tools."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from modelyard.api.mcp.chat_tool import CHAT_TOOL
from modelyard.api.mcp.model_tools import MODEL_TOOLS
from modelyard.api.mcp.pooling_tools import POOLING_TOOLS
from modelyard.api.mcp.tools import Tool, UnknownArgument

TOOLS = (CHAT_TOOL, *POOLING_TOOLS, *MODEL_TOOLS)
# Models are sent the schemas of all tools before each of their answers: 16 KB are about 4,000 tokens.
MAX_SCHEMAS_BYTES = 16_000


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_schema_is_one_of_an_object_that_refers_to_nothing_else(tool: Tool) -> None:
    schema = tool.schema
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["type"] == "object"
    assert set(tool.required) <= schema["properties"].keys()
    assert "#/components" not in json.dumps(schema)
    assert all(field["description"] for field in schema["properties"].values())


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_no_schema_has_null_which_the_apis_of_some_models_refuse(tool: Tool) -> None:
    assert "null" not in json.dumps(tool.schema)


def test_the_schemas_are_short() -> None:
    assert sum(len(json.dumps(tool.schema)) for tool in TOOLS) < MAX_SCHEMAS_BYTES


ARGUMENTS: list[tuple[str, dict[str, Any]]] = [
    ("chat", {"prompt": "Hello"}),
    ("chat", {"messages": "Hello", "model": "m", "max_tokens": 5, "stop": ["."], "response_format": {"type": "text"}}),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]}),
    ("embed", {"input": ["a", "b"], "encoding_format": "base64"}),
    ("rerank", {"query": "q", "documents": ["a", {"text": "b"}], "top_n": 1}),
    ("list_models", {}),
    ("unload_model", {"model_id": "m", "mode": "park"}),
]


@pytest.mark.parametrize(("name", "arguments"), ARGUMENTS)
def test_arguments_suit_the_schema_and_the_body_of_the_endpoint(name: str, arguments: dict[str, Any]) -> None:
    tool = next(tool for tool in TOOLS if tool.name == name)
    jsonschema.validate(arguments, tool.schema)
    tool.check_names(arguments)
    if "prompt" not in arguments:
        tool.body.model_validate(arguments)


def test_a_field_that_is_not_listed_is_accepted() -> None:
    assert "mirostat" not in CHAT_TOOL.schema["properties"]
    CHAT_TOOL.check_names({"prompt": "Hello", "mirostat": 2, "repeat_penalty": 1.1})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"promt": "Hello"}, "has no argument 'promt'. Did you mean 'prompt'?"),
        ({"stream": True}, "has no argument 'stream'."),
        ({"x" * 1000: 1}, f"has no argument '{'x' * 200}'."),
    ],
)
def test_other_arguments_are_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UnknownArgument) as refused:
        CHAT_TOOL.check_names(arguments)
    assert said in str(refused.value)
