"""Schemas keep what llguidance enforces, and their integers end."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.engine.formats.enforceable import MAX_INTEGER, MIN_INTEGER, enforceable

BOTH = {"minimum": MIN_INTEGER, "maximum": MAX_INTEGER}


@pytest.mark.parametrize(
    ("schema", "bounds"),
    [
        ({"type": "integer"}, BOTH),
        ({"type": ["integer", "null"]}, BOTH),
        ({"type": "integer", "minimum": 3}, {"maximum": MAX_INTEGER}),
        ({"type": "integer", "exclusiveMaximum": 3}, {"minimum": MIN_INTEGER}),
        ({"type": "integer", "minimum": 1, "maximum": 2}, {}),
        ({"type": "integer", "minimum": 2**70}, {}),
        ({"type": "integer", "const": 2**70}, {}),
        ({"type": "integer", "enum": [1]}, {}),
        ({"type": "number"}, {}),
        ({"type": ["integer", "number"]}, {}),
    ],
)
def test_integers_get_the_bounds_that_they_lack(schema: dict[str, Any], bounds: dict[str, int]) -> None:
    assert enforceable(schema).schema == schema | bounds


@pytest.mark.parametrize(
    ("wrap", "where"),
    [
        (lambda part: {"properties": {"pattern": part}}, "pattern"),
        (lambda part: {"items": part}, "pattern"),
        (lambda part: {"prefixItems": [part]}, "pattern"),
        (lambda part: {"anyOf": [{"type": "null"}, part]}, "pattern"),
        (lambda part: {"$defs": {"a": part}, "$ref": "#/$defs/a"}, "pattern"),
        (lambda part: {"additionalProperties": part}, "pattern"),
    ],
)
def test_patterns_are_found_wherever_schemas_are(wrap: Any, where: str) -> None:
    found = enforceable(wrap({"type": "string", "pattern": "(?=a)b"}))
    assert found.schema == wrap({"type": "string", "pattern": "b"})
    assert found.dropped == (f"{where} (?=...)",)


def test_names_of_properties_are_patterns_too() -> None:
    found = enforceable({"patternProperties": {r"^\bx": {"type": "integer"}}})
    # More names match than should, so that nothing is demanded of their values.
    assert found.schema == {"patternProperties": {"^x": {}}}
    assert found.dropped == (r"patternProperties \b",)


@pytest.mark.parametrize("key", ["enum", "const", "default", "examples"])
def test_values_are_no_schemas(key: str) -> None:
    schema = {key: [{"pattern": "(?=a)", "type": "integer"}]}
    assert enforceable(schema).schema == schema
