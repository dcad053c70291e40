"""Whatever a model would like to say, under a schema it says JSON of that schema."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from modelyard.engine.chat.grammar import AnswerConstraints, grammar_of
from modelyard.engine.formats.answer_grammar import AnswerGrammar
from modelyard.engine.formats.registry import FORMATS
from unit.engine.guidance.words import END, OTHER_END, TOKENS, babble, constraint, vocabulary

WORDS = vocabulary()
ENDS = frozenset((END, OTHER_END))
KEYS = st.sampled_from(["a", "b", "name", "é", 'quo"te', "a b", ""])
SCALARS = st.none() | st.booleans() | st.integers(-1000, 1000) | st.text('abé"\\\n/日', max_size=4)
BOUNDS = st.tuples(st.integers(-50, 50), st.integers(0, 60)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def _numbers(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    def bounded(pair: tuple[int, int], excludes: bool) -> dict[str, Any]:
        # An interval that is open on one side, and never empty.
        low = {"exclusiveMinimum": pair[0] - 1} if excludes else {"minimum": pair[0]}
        return {"type": kind, **low, "maximum": pair[1]}

    return st.just({"type": kind}) | st.builds(bounded, BOUNDS, st.booleans())


def _strings() -> st.SearchStrategy[dict[str, Any]]:
    lengths = st.tuples(st.integers(0, 3), st.integers(0, 5)).map(
        lambda pair: {"type": "string", "minLength": pair[0], "maxLength": sum(pair)}
    )
    patterns = st.sampled_from(["^[a-c]{2,4}$", r"^\d+-\d{2}$", "^(yes|no)$", "^a.*b$", "^x"])
    return st.just({"type": "string"}) | lengths | patterns.map(lambda each: {"type": "string", "pattern": each})


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    def built(properties: dict[str, Any], needed: list[bool], more: Any) -> dict[str, Any]:
        required = [key for key, is_needed in zip(properties, needed, strict=False) if is_needed]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": more}

    needed = st.lists(st.booleans(), min_size=4, max_size=4)
    return st.builds(built, st.dictionaries(KEYS, inner, max_size=4), needed, st.just(False) | inner)


def _arrays(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    def built(items: Any, least: int, more: int | None) -> dict[str, Any]:
        most = {} if more is None else {"maxItems": least + more}
        return {"type": "array", "items": items, "minItems": least, **most}

    def tuples(first: list[Any]) -> dict[str, Any]:
        return {"type": "array", "prefixItems": first, "items": False, "minItems": len(first)}

    plain = st.builds(built, inner, st.integers(0, 2), st.none() | st.integers(0, 3))
    return plain | st.lists(inner, min_size=1, max_size=3).map(tuples)


LEAVES = (
    st.sampled_from(
        [{"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}, {"type": ["integer", "array"]}]
    )
    | _numbers("integer")
    | _numbers("number")
    | _strings()
    | st.lists(SCALARS, min_size=1, max_size=4).map(lambda values: {"enum": values})
    | SCALARS.map(lambda value: {"const": value})
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: (
        _objects(inner) | _arrays(inner) | st.lists(inner, min_size=1, max_size=3).map(lambda each: {"anyOf": each})
    ),
    max_leaves=6,
)
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["value", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}


def babbled(schema: Any, seed: int, *, strict: bool = True) -> Any:
    demand = {"type": "json_schema", "json_schema": {"schema": schema, "strict": strict}}
    grammar = grammar_of(AnswerGrammar(FORMATS["generic"], lambda _: None), AnswerConstraints(response_format=demand))
    assert grammar is not None
    said, _ = babble(constraint(grammar, WORDS), TOKENS, ENDS, seed)
    return json.loads(said.decode())


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(SCHEMAS, st.integers(0, 2**32))
def test_what_is_said_is_valid_json_of_its_schema(schema: Any, seed: int) -> None:
    jsonschema.validate(babbled(schema, seed), schema)


@pytest.mark.parametrize("seed", range(5))
def test_schemas_that_refer_to_themselves_are_followed_to_any_depth(seed: int) -> None:
    jsonschema.validate(babbled(TREE, seed), TREE)


@pytest.mark.parametrize("seed", range(5))
def test_what_cannot_be_enforced_of_a_schema_leaves_the_rest_enforced(seed: int) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "uniqueItems": True}},
        "required": ["a"],
        "additionalProperties": False,
    }
    said = babbled(schema, seed, strict=False)
    del schema["properties"]["a"]["uniqueItems"]  # type: ignore[index]
    jsonschema.validate(said, schema)


@pytest.mark.parametrize("seed", range(5))
def test_a_json_object_is_one(seed: int) -> None:
    constraints = AnswerConstraints(response_format={"type": "json_object"})
    grammar = grammar_of(AnswerGrammar(FORMATS["generic"], lambda _: None), constraints)
    assert grammar is not None
    with ThreadPoolExecutor(1) as masks:
        said, _ = babble(constraint(grammar, WORDS), TOKENS, ENDS, seed, masks=masks)
    assert isinstance(json.loads(said.decode()), dict)
