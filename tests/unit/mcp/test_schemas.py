"""Schemas of tools that foreign servers write."""

import pytest

from modelyard.mcp.schemas import UnusableSchema, parameters_of


def nested(depth):
    schema = {"type": "string"}
    for _ in range(depth):
        schema = {"items": schema}
    return {"type": "object", "properties": {"a": schema}}


def test_a_schema_is_kept_without_what_names_its_document():
    schema = {"$schema": "x", "$id": "y", "type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {}}
    assert parameters_of(schema) == {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {}}


def test_a_schema_without_type_and_properties_is_that_of_an_object():
    assert parameters_of({}) == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (None, "is no object"),
        ([], "is no object"),
        ({"type": "string"}, "is not of the type object"),
        ({"properties": []}, "are no object"),
        (nested(40), "nests deeper than 32 levels"),
        (nested(900), "nests deeper than 32 levels"),
        ({"description": "x" * 70_000}, "and 65536 are the limit"),
        ({"properties": {"a": {"$ref": "http://a/b.json"}}}, "refers to another document"),
        ({"properties": {"a": {1, 2}}}, "cannot be written as JSON"),
        ({"properties": {"a": {"maximum": 1 << 64}}}, "cannot be written as JSON"),
        ({"properties": {"a": {"description": "\ud800"}}}, "cannot be written as JSON"),
    ],
)
def test_an_unusable_schema_is_refused_with_the_reason(schema, why):
    with pytest.raises(UnusableSchema, match=why):
        parameters_of(schema)
