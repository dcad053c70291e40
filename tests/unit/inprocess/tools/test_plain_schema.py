"""Schemas without titles and references allow what they allowed before."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, create_model

from modelyard.inprocess.tools.plain_schema import MAX_NODES, plain_schema


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"]
    title: str = Field(description="its name")


class Dog(BaseModel):
    kind: Literal["dog"]
    color: Color


@dataclass
class Home:
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]]
    favourite: Cat | None = None
    colors: dict[str, Color] | None = None


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


def schema_of(kind: Any) -> dict[str, Any]:
    return TypeAdapter(kind).json_schema()


def test_references_are_replaced_by_what_they_name() -> None:
    schema = plain_schema(schema_of(Home))
    assert not any(word in json.dumps(schema) for word in ("$ref", "$defs", "discriminator", '"Home"'))
    # A property of that name stays.
    assert schema["properties"]["favourite"]["anyOf"][0]["properties"]["title"]["description"] == "its name"


def test_what_stands_beside_a_reference_goes_before_what_it_names() -> None:
    class Order(BaseModel):
        pet: Cat = Field(description="which one", default=Cat(kind="cat", title="Tom"))

    pet = plain_schema(schema_of(Order))["properties"]["pet"]
    assert (pet["description"], pet["default"]) == ("which one", {"kind": "cat", "title": "Tom"})


def test_values_that_are_no_json_are_left_out() -> None:
    properties = {
        "most": {"type": "number", "default": math.inf},
        "default": {"type": "array", "default": [math.nan], "examples": [[1]]},
    }
    assert plain_schema({"type": "object", "properties": properties}) == {
        "type": "object",
        "properties": {"most": {"type": "number"}, "default": {"type": "array", "examples": [[1]]}},
    }


def test_a_type_that_contains_itself_keeps_its_references() -> None:
    schema = plain_schema(schema_of(Tree))
    assert "$ref" in json.dumps(schema)
    assert "title" not in schema
    jsonschema.validate({"name": "a", "children": [{"name": "b"}]}, schema)


def test_a_schema_that_would_become_too_large_keeps_its_references() -> None:
    kind: Any = create_model("Leaf", value=(int, ...))
    for number in range(20):
        kind = create_model(f"Node{number}", left=(kind, ...), right=(kind, ...))
    schema = plain_schema(schema_of(kind))
    assert len(json.dumps(schema)) < 100 * MAX_NODES
    assert "$ref" in json.dumps(schema)


_WORDS = st.sampled_from(["cat", "dog", "red", "blue", "Tom", 1, None])
_PETS = st.dictionaries(st.sampled_from(["kind", "title", "color"]), _WORDS, max_size=3)
_HOMES = st.fixed_dictionaries(
    {}, optional={"pets": st.lists(_PETS, max_size=2), "favourite": _PETS | _WORDS, "colors": _PETS | _WORDS}
)


@pytest.mark.parametrize("kind", [Home, list[Home], Cat | Dog | None, dict[str, Color]])
@settings(deadline=None)
@given(value=_HOMES | st.lists(_HOMES, max_size=2) | _PETS | st.none())
def test_the_same_values_follow_the_schema(kind: Any, value: Any) -> None:
    before, after = schema_of(kind), plain_schema(schema_of(kind))
    allowed = [jsonschema.Draft202012Validator(schema).is_valid(value) for schema in (before, after)]
    assert allowed[0] == allowed[1]
