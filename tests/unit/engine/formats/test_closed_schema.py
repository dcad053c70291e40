"""Which objects of a schema take no other properties than they name, once it is closed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from itertools import product
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from modelyard.engine.formats import closed_schema
from modelyard.engine.formats.closed_schema import MAX_SCHEMAS, closed
from modelyard.engine.formats.lark import Lark
from modelyard.errors import InvalidRequest

NUMBER = {"type": "integer"}
A: dict[str, Any] = {"type": "object", "properties": {"a": NUMBER}, "required": ["a"]}
B: dict[str, Any] = {"type": "object", "properties": {"b": NUMBER}}
SHUT = {"additionalProperties": False}


class Leaf(BaseModel):
    name: str = Field(default="leaf", description="What it is called.")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    size: int


class Tree(BaseModel):
    leaf: Leaf = Field(description="The first.")
    maybe: Leaf | None
    either: Leaf | Open
    listed: list[Leaf]
    pair: tuple[Leaf, int]
    named: dict[str, Leaf]
    inner: list[Tree]


def test_the_objects_of_classes_are_closed_wherever_they_are_but_for_those_that_let_more_in() -> None:
    shut = closed(Tree.model_json_schema(), "format")
    assert {name: part["additionalProperties"] for name, part in shut["$defs"].items()} == {
        "Leaf": False,
        "Open": True,
        "Tree": False,
    }
    tree = {
        "leaf": {"name": "x"},
        "maybe": None,
        "either": {"size": 1, "more": 2},
        "listed": [{"name": "x"}],
        "pair": [{}, 1],
        "named": {"k": {"name": "x"}},
        "inner": [],
    }
    tree["inner"] = [copy.deepcopy(tree)]
    jsonschema.validate(tree, shut)
    for path in (("leaf",), ("listed", 0), ("pair", 0), ("named", "k"), ("inner", 0), ("inner", 0, "leaf")):
        wrong: Any = copy.deepcopy(tree)
        at = wrong
        for step in path:
            at = at[step]
        at["more"] = 1
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, shut)


@pytest.mark.parametrize(
    "schema",
    [
        lambda a, b: {"anyOf": [a, b]},
        lambda a, _: {"oneOf": [a, {"type": "null"}], "description": "One or none."},
        lambda a, _: {"allOf": [a], "default": {"a": 1}},
        lambda a, _: {"$ref": "#/$defs/x", "$defs": {"x": a}, "title": "It"},
        lambda a, _: {"$ref": "#/definitions/a~1b", "definitions": {"a/b": a}},
        lambda a, _: {"$ref": "#/$defs/a%25b", "$defs": {"a%b": a}},
        lambda a, b: {"items": {"$ref": "#/prefixItems/1"}, "prefixItems": [a, b]},
        lambda a, _: {"type": "object", "additionalProperties": a},
        lambda a, b: {"allOf": [{"anyOf": [a, {"$ref": "#/$defs/x"}]}], "$defs": {"x": b}},
    ],
)
def test_what_one_schema_alone_has_a_say_in_is_closed(schema: Callable[..., dict[str, Any]]) -> None:
    assert closed(schema(A, B), "format") == schema({**A, **SHUT}, {**B, **SHUT})


def test_properties_may_have_the_names_of_keywords_and_nothing_that_was_given_is_changed() -> None:
    schema = {"type": ["object", "null"], "maxProperties": 2, "properties": {"properties": A, "$ref": NUMBER}}
    before = copy.deepcopy(schema)
    shut = {**schema, "properties": {"properties": {**A, **SHUT}, "$ref": NUMBER}, **SHUT}
    assert closed(schema, "format") == shut
    assert schema == before


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [A, B]},
        {"allOf": [{"$ref": "#/$defs/x"}, B], "$defs": {"x": A}},
        {"$ref": "#/$defs/x", "properties": {"b": NUMBER}, "required": ["b"], "$defs": {"x": A}},
        {"$ref": "#/$defs/x", "required": ["b"], "$defs": {"x": A}},
        {"$ref": "#/$defs/x", "anyOf": [B], "$defs": {"x": A}},
        {"anyOf": [A, B], "required": ["c"]},
        {"anyOf": [A, B], "oneOf": [B]},
        {"anyOf": [{"allOf": [A, B]}]},
        {**A, "anyOf": [{"required": ["b"]}, {"required": ["c"]}]},
        {**A, "if": B, "then": {"required": ["c"]}},
        {**A, "not": B},
        {**A, "dependentSchemas": {"a": B}},
        {**A, "dependentRequired": {"a": ["b"]}},
        {**A, "required": ["a", "b"]},
        {**A, "required": "a"},
        {**A, "required": [7]},
        {**A, "minProperties": 2},
        {**A, "enum": [{"a": 1, "b": 2}]},
        {**A, "const": {"a": 1, "b": 2}},
        {**A, "propertyNames": {"minLength": 1}},
        {**A, "additionalProperties": True},
        {**A, "additionalProperties": NUMBER},
        {**A, "patternProperties": {"^b": NUMBER}},
        {**A, "unevaluatedProperties": True},
        {"patternProperties": {"^b": A}, "properties": {"b": B}},
        {"type": "array", "items": A, "contains": B},
        {"allOf": [{"properties": {"x": A}}, {"properties": {"x": B}}]},
        {"properties": 7},
        {"properties": [A]},
        {"allOf": 7, "anyOf": A, "items": True},
        {"const": A, "default": A, "examples": [A], "x-mine": A},
    ],
)
def test_what_others_may_have_a_say_in_stays_as_it_is(schema: dict[str, Any]) -> None:
    assert closed(schema, "format") == schema


def test_a_definition_that_is_used_alone_and_beside_others_stays_open() -> None:
    schema = {
        "properties": {"alone": {"$ref": "#/$defs/x"}, "both": {"allOf": [{"$ref": "#/$defs/x"}, B]}},
        "$defs": {"x": A, "y": {"properties": {"x": {"$ref": "#/$defs/x"}}}},
    }
    shut = closed(schema, "format")
    assert shut["$defs"] == {"x": A, "y": {**schema["$defs"]["y"], **SHUT}}
    assert shut["additionalProperties"] is False


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#x"},
        {"$ref": "https://example.org/schema"},
        {"$ref": "#/$defs/x"},
        {"$ref": "#/anyOf/2"},
        {"$ref": "#/anyOf/a"},
        {"$ref": "#/anyOf/" + "9" * 5000},
        {"$ref": 7},
        {"$dynamicRef": "#"},
        {"$recursiveRef": "#"},
        {"$id": "https://example.org/inner"},
    ],
)
def test_a_schema_that_leads_to_where_nobody_knows_stays_as_it_is(schema: dict[str, Any]) -> None:
    whole = {"anyOf": [schema, A]}
    assert closed(whole, "format") == whole


def test_a_schema_may_refer_to_itself_and_have_a_name() -> None:
    schema = {"$id": "https://example.org/list", "properties": {"next": {"$ref": "#"}}}
    assert closed(schema, "format") == {**schema, **SHUT}


def test_no_depth_is_too_deep() -> None:
    schema: dict[str, Any] = copy.deepcopy(A)
    for _ in range(MAX_SCHEMAS // 4):
        schema = {"type": "object", "properties": {"a": schema}}
    shut = closed(schema, "format")
    depth = 0
    while "properties" in shut:
        assert shut["additionalProperties"] is False
        shut, depth = shut["properties"]["a"], depth + 1
    assert depth == MAX_SCHEMAS // 4 + 1
    # Python frees it a level at a time, and not by calls of calls.
    while "properties" in schema:
        schema = schema["properties"]["a"]


def test_a_schema_of_too_many_parts_is_refused_by_the_name_of_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_schema, "MAX_SCHEMAS", 10)
    closed({"properties": dict.fromkeys("abcdefghi", NUMBER)}, "format")
    with pytest.raises(InvalidRequest, match=r"format has more than 10 schemas") as refused:
        closed({"properties": dict.fromkeys("abcdefghij", NUMBER)}, "format")
    assert refused.value.param == "format"


@pytest.mark.parametrize("strict", [True, False])
def test_the_objects_of_every_grammar_are_closed(strict: bool) -> None:
    lark = Lark(lambda _: None, ())
    rules = lark.grammar(lark.json(A, strict=strict))
    assert json.dumps(SHUT)[1:-1] in rules


# Whatever can be said under a schema: a closed one leaves something to say where there was something.

NAMES = st.sampled_from("abc")


def _schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=2)
    parts = st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "required": st.lists(NAMES, max_size=2, unique=True),
            "allOf": several,
            "anyOf": several,
            "$ref": st.sampled_from(["#/$defs/x", "#/$defs/y"]),
            "minProperties": st.integers(0, 2),
            "additionalProperties": st.booleans() | inner,
        },
    )
    return parts.map(lambda part: {"type": "object", **part})


LEAVES = st.sampled_from([NUMBER, A, B, {"$ref": "#/$defs/x"}, {"allOf": [A, {"$ref": "#/$defs/x"}]}])
SCHEMAS = st.recursive(LEAVES, _schemas, max_leaves=5)
DEFINED = st.sampled_from([A, B, {"allOf": [A, B]}, {"anyOf": [A, B]}, {"properties": {"a": A}}])
ABSENT = object()


def _objects(values: list[Any]) -> list[dict[str, Any]]:
    chosen = product([ABSENT, *values], repeat=3)
    return [{name: each for name, each in zip("abc", each, strict=True) if each is not ABSENT} for each in chosen]


FLAT = _objects([0])
VALUES = [0, *FLAT, *_objects([0, {}, {"a": 0}, {"b": 0}, {"a": 0, "b": 0}])]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(SCHEMAS, DEFINED, DEFINED)
def test_a_closed_schema_says_no_more_than_it_did_and_something_where_it_did(root: Any, x: Any, y: Any) -> None:
    schema = {**root, "$defs": {"x": x, "y": y}}
    before = jsonschema.Draft202012Validator(schema)
    after = jsonschema.Draft202012Validator(closed(schema, "format"))
    valid = [value for value in VALUES if before.is_valid(value)]
    left = [value for value in valid if after.is_valid(value)]
    assert bool(left) == bool(valid)
    assert all(before.is_valid(value) for value in VALUES if after.is_valid(value))
