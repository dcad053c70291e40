"""An answer under a grammar comes to its end within its limit of tokens, whatever its model would say."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import numpy as np
import pytest

from modelyard.engine.formats.lark import Lark
from modelyard.engine.guidance import Constraint
from modelyard.engine.guidance.closing import closing
from modelyard.engine.guidance.constraint import MAX_DIGITS, MAX_EXPONENT_DIGITS
from modelyard.engine.guidance.matcher import Matcher
from unit.engine.guidance.words import CONTROL, SIZE, TOKENS, constraint, vocabulary

WORDS = vocabulary()
RECORD = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "born": {"type": "string", "format": "date"},
        "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]+$"},
        "kind": {"enum": ["red", "green"]},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "inner": {"type": "object", "properties": {"deep": {"type": ["number", "null"]}}, "required": ["deep"]},
    },
    "required": ["name", "born", "code", "kind", "tags", "inner"],
    "additionalProperties": False,
}


def grammar(schema: dict[str, Any]) -> str:
    lark = Lark(lambda _: None, ())
    return lark.grammar(lark.json(schema, strict=False))


def text_of(tokens: tuple[int, ...] | list[int]) -> str:
    return b"".join(TOKENS[token] for token in tokens if token not in WORDS.end_tokens).decode()


def follow(over: Constraint, liked: str, limit: int) -> str:
    """What a model says that likes some characters best, until the grammar or the limit ends it."""
    over.tokens_left = limit
    said: list[int] = []
    preference = np.zeros(SIZE, np.float32)
    for rank, character in enumerate(reversed(liked), start=1):
        preference[ord(character)] = rank
    while len(said) < limit:
        logits = preference.copy()
        over.apply(logits)
        token = over.advance(int(logits.argmax()))
        if token in WORDS.end_tokens:
            break
        said.append(token)
        if over.is_complete:
            break
    return text_of(said)


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the time of a search is over before it has done anything."""
    monkeypatch.setattr("modelyard.engine.guidance.closing.MAX_SEARCH_S", 60.0)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "array", "items": RECORD, "minItems": 2},
        {"type": "string", "minLength": 20},
        {"anyOf": [RECORD, {"type": "null"}]},
        {"$defs": {"t": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/t"}, {"type": "null"}]}},
                         "required": ["next"]}}, "$ref": "#/$defs/t"},
    ],
)  # fmt: skip
def test_each_schema_has_a_completion_that_is_valid(schema: dict[str, Any]) -> None:
    found = closing(Matcher(WORDS, grammar(schema)), WORDS)
    assert found is not None
    jsonschema.validate(json.loads(text_of(found.tokens)), schema)


@pytest.mark.parametrize(
    ("rules", "pattern"),
    [
        ("start: /(ab)+c/", "(ab)+c"),
        ("start: /[0-9]{7}/", "[0-9]{7}"),
        ('start: e\ne: "(" e ")" | /[a-z]/', "[(]*[a-z][)]*"),
        ("start: /-?[0-9]+([.][0-9]+)?;/", "-?[0-9]+([.][0-9]+)?;"),
    ],
)
def test_other_grammars_have_completions_too(rules: str, pattern: str) -> None:
    found = closing(Matcher(WORDS, rules), WORDS)
    assert found is not None
    assert re.fullmatch(pattern, text_of(found.tokens))


def test_a_completion_passes_through_control_tokens() -> None:
    lark = Lark({"<control>": CONTROL}.get, ["<control>"])
    rules = lark.grammar(f"{lark.text_until('<control>')} {lark.json({'type': 'array'}, strict=False)}")
    found = closing(Matcher(WORDS, rules), WORDS)
    assert found is not None
    assert found.tokens[0] == CONTROL
    assert json.loads(text_of(found.tokens[1:])) == []


def test_free_text_without_an_end_of_its_own_has_no_completion() -> None:
    lark = Lark(lambda _: None, ())
    rules = lark.grammar(f"{lark.text_until('</think>')} {lark.json({'type': 'array'}, strict=False)}")
    assert closing(Matcher(WORDS, rules), WORDS) is None


@pytest.mark.parametrize("limit", [40, 41, 57, 300, 513, 700])
@pytest.mark.parametrize("liked", ["a", '{"a', '["', "[{", "0", ' "'])
def test_an_answer_is_valid_json_at_any_limit(limit: int, liked: str) -> None:
    said = follow(constraint(grammar({"type": "object"}), WORDS), liked, limit)
    assert isinstance(json.loads(said), dict)


@pytest.mark.parametrize("limit", range(150, 260, 7))
def test_an_array_ends_before_an_item_that_would_not_fit(limit: int) -> None:
    schema = {"type": "array", "items": RECORD}
    said = json.loads(follow(constraint(grammar(schema), WORDS), "[{ab", limit))
    jsonschema.validate(said, schema)


def test_an_answer_that_was_led_to_its_end_is_cut_and_another_is_not() -> None:
    cut = constraint(grammar({"type": "string"}), WORDS)
    follow(cut, "a", 20)
    assert cut.is_cut
    whole = constraint(grammar({"type": "string"}), WORDS)
    assert follow(whole, '"', 20) == '""'
    assert not whole.is_cut


def test_text_that_may_end_anywhere_uses_all_its_tokens() -> None:
    over = constraint("start: /a+/", WORDS)
    assert follow(over, "a", 20) == "a" * 20
    assert not over.is_cut


def test_a_call_is_not_completed() -> None:
    over = Constraint(WORDS, Matcher(WORDS, grammar({"type": "string"})), closes=False)
    assert follow(over, '"a', 20).startswith('"') or not over.is_cut
    assert not over.is_cut


def test_a_token_that_is_taken_back_leaves_no_trace() -> None:
    over = constraint(grammar({"type": "string"}), WORDS)
    over.tokens_left = 3
    assert over.advance(ord('"')) == ord('"')
    for _ in range(3):
        assert over.advance(ord("a")) == ord("a")
        over.take_back()
    assert over.advance(ord("a")) == ord("a")
    assert over.advance(ord("a")) == ord('"')
    over.take_back()
    assert not over.is_cut
    assert over.tokens_left == 1


@pytest.mark.parametrize("liked", ["0", "9", "1.0", "1e9", "-9.9"])
def test_a_number_ends_without_a_limit_of_tokens(liked: str) -> None:
    over = constraint(grammar({"type": "number"}), WORDS)
    said = follow(over, liked, 10_000)
    assert len(said) <= 3 * MAX_DIGITS
    assert abs(float(said)) < 10 ** (MAX_DIGITS + 10**MAX_EXPONENT_DIGITS)
    assert not over.is_cut


def test_digits_in_text_are_not_limited() -> None:
    over = constraint(grammar({"type": "string"}), WORDS)
    over.accept(ord('"'))
    said = follow(over, "7", 3 * MAX_DIGITS)
    assert said.startswith("7" * 2 * MAX_DIGITS)


def test_digits_that_a_grammar_demands_are_not_limited() -> None:
    assert follow(constraint("start: /[0-9]{60}/", WORDS), "5", 1000) == "5" * 60
