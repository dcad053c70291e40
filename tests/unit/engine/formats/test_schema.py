"""Bare text becomes the JSON that a tool's schema asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard.engine.formats.schema import Tool

SCHEMA = {
    "type": "object",
    "$defs": {"level": {"type": "integer"}, "round": {"$ref": "#/$defs/round"}},
    "properties": {
        "text": {"type": "string"},
        "choice": {"enum": ["1", "2"]},
        "number": {"type": "number"},
        "level": {"$ref": "#/$defs/level"},
        "flag": {"type": "boolean"},
        "list": {"type": "array"},
        "maybe": {"type": ["string", "null"]},
        "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "constant": {"const": 5},
        "any": {},
        "true": True,
        "round": {"$ref": "#/$defs/round"},
        "nowhere": {"$ref": "#/$defs/none"},
    },
}
TOOL = Tool("f", parameters=SCHEMA)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("text", "5", "5"),
        ("text", ' "a"\n', ' "a"\n'),
        ("choice", "1", "1"),
        ("number", "5", 5),
        ("number", "-2.5e3", -2500.0),
        ("number", "NaN", "NaN"),
        ("number", "9" * 5000, "9" * 5000),
        ("level", " 7 ", 7),
        ("flag", "true", True),
        ("flag", "False", False),
        ("list", '[1, {"a": null}]', [1, {"a": None}]),
        ("list", "[1,", "[1,"),
        ("list", "[" * 5000, "[" * 5000),
        ("maybe", "null", None),
        ("maybe", "None", None),
        ("maybe", "5", "5"),
        ("maybe", '"quoted"', '"quoted"'),
        ("either", "5", 5),
        ("either", "five", "five"),
        ("constant", "5", 5),
        ("any", "5", 5),
        ("any", "five", "five"),
        ("any", '"five"', '"five"'),
        ("true", "5", 5),
        ("round", "5", 5),
        ("nowhere", "a", "a"),
        ("unknown", '{"a": 1}', {"a": 1}),
    ],
)
def test_an_argument_has_the_type_of_its_schema(name: str, text: str, value: Any) -> None:
    assert json.loads(TOOL.argument(name, text)) == value


def test_only_what_can_be_nothing_else_is_text() -> None:
    assert [name for name in SCHEMA["properties"] if TOOL.is_text(name)] == ["text", "choice"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "parameters", [{}, {"properties": None}, {"properties": {"a": None}}, {"properties": {"a": {"anyOf": 5}}}]
)
def test_a_schema_that_says_nothing_is_no_fault(parameters: dict[str, Any]) -> None:
    assert Tool("f", parameters=parameters).argument("a", "5") == "5"
