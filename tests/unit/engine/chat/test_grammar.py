"""What a request demands of its answer is one grammar, or is refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher

from modelyard.engine.chat.grammar import MAX_GRAMMAR_LENGTH, AnswerConstraints, grammar_of
from modelyard.engine.formats.answer_grammar import AnswerGrammar, Named
from modelyard.engine.formats.lark import TokenId
from modelyard.engine.formats.reasoning import REASONING, ReasoningFormat
from modelyard.engine.formats.registry import FORMATS, control_tokens
from modelyard.engine.formats.schema import Tool
from modelyard.engine.guidance.compiler import LIMITS
from modelyard.engine.guidance.grammar_text import Grammar
from modelyard.engine.guidance.trial import GrammarTrials
from modelyard.errors import InvalidRequest
from unit.engine.formats.bytes_vocabulary import BytesVocabulary

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
AGE = Tool("age", parameters=SCHEMA)
STRICT_AGE = Tool("age", parameters=SCHEMA, strict=True)
CALL = '<tool_call>\n{"name": "age", "arguments": {"a": 1}}\n</tool_call>'
LOOSE_CALL = CALL.replace('"a": 1', '"b": 1')


def schema_format(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **more}}


def demanded(
    of: str = "hermes",
    token_id: TokenId = lambda _: None,
    reasoning: ReasoningFormat | None = None,
    prompt_ends_in_reasoning: bool = False,
    **demands: Any,
) -> Grammar | None:
    """The grammar of an answer to a request with these demands."""
    answer = AnswerGrammar(FORMATS[of], token_id, reasoning, prompt_ends_in_reasoning=prompt_ends_in_reasoning)
    return grammar_of(answer, AnswerConstraints(**demands))


def lets_pass(text: str, *, of: str = "hermes", control: bool = False, **demands: Any) -> bool:
    """Whether ``text`` is a whole answer to a request with these demands."""
    markers = control_tokens(FORMATS[of], demands.get("reasoning"))
    words = BytesVocabulary(markers if control else ())
    grammar = demanded(of, words.control.get, **demands)
    assert grammar is not None
    matcher: LLMatcher = words.matcher(grammar)
    tokens = words.tokens_of(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


TRIALS = GrammarTrials(LIMITS)


def tried(grammar: Grammar | None) -> None:
    assert grammar is not None
    TRIALS.check(grammar, grammar.param)


def refusal(**demands: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        tried(demanded(**demands))
    return refused.value


@pytest.mark.parametrize(
    "demands",
    [
        {},
        {"response_format": {"type": "text"}},
        {"tools": (AGE,)},
        {"tools": (STRICT_AGE,), "choice": "none"},
    ],
)
def test_an_answer_is_free_unless_something_is_demanded(demands: dict[str, Any]) -> None:
    assert demanded(**demands) is None


@pytest.mark.parametrize(
    ("demand", "right", "wrong"),
    [
        ({"response_format": {"type": "json_object"}}, '{"x": [1, "é"]}', "[1]"),
        ({"response_format": schema_format(SCHEMA)}, '{"a": 1}', '{"b": 1}'),
        ({"response_format": schema_format(SCHEMA, strict=True)}, '{"a":1}', '{"a": "1"}'),
        ({"grammar": {"type": "json_schema", "value": SCHEMA}}, '{"a": 1}', '{"b": 1}'),
        ({"grammar": {"type": "regex", "value": r"(yes|no)/\d\"?"}}, "no/5", "maybe"),
        ({"grammar": {"type": "lark", "value": 'start: "a" b\nb: "b"+'}}, "abb", "ba"),
        ({"grammar": {"type": "llguidance", "value": {"grammars": [{"json_schema": SCHEMA}]}}}, '{"a": 1}', "{}"),
        ({"grammar": {"type": "llguidance", "value": 'start: "a"'}}, "a", "b"),
        ({"tools": (AGE,), "choice": "required"}, CALL, LOOSE_CALL),
        ({"tools": (AGE, Tool("b")), "choice": Named("age")}, CALL, CALL.replace("age", "b")),
        ({"tools": (STRICT_AGE,)}, f"So. {CALL}", LOOSE_CALL),
        ({"tools": (STRICT_AGE, Tool("b"))}, CALL.replace("age", "b"), LOOSE_CALL),
        ({"tools": (STRICT_AGE,)}, "No call.", "<tool_call>no"),
        ({"tools": (AGE,), "response_format": schema_format({"const": "x"})}, '"x"', "x"),
        ({"tools": (AGE,), "response_format": schema_format({"const": "x"})}, LOOSE_CALL, f"x {CALL}"),
    ],
)
def test_what_is_demanded_is_enforced(demand: dict[str, Any], right: str, wrong: str) -> None:
    assert lets_pass(right, **demand)
    assert not lets_pass(wrong, **demand)


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.parametrize(
    ("demand", "answer"),
    [
        ({"response_format": schema_format(SCHEMA)}, '{"a": 1}'),
        ({"grammar": {"type": "regex", "value": "a+"}}, "aa"),
        ({"tools": (AGE,), "choice": "required"}, CALL),
    ],
)
def test_reasoning_comes_first(demand: dict[str, Any], answer: str, control: bool) -> None:
    think: dict[str, Any] = {"reasoning": REASONING["think"], "control": control}
    assert lets_pass(f"<think>\nHm.\n</think>\n\n{answer}", **demand, **think)
    assert lets_pass(answer, **demand, **think)
    assert lets_pass(f"Hm.\n</think>\n\n{answer}", **demand, **think, prompt_ends_in_reasoning=True)
    assert not lets_pass("<think>\nHm.\n</think>\n\nSo.", **demand, **think)


@pytest.mark.parametrize("control", [True, False])
def test_harmony_writes_content_on_its_own_channel(control: bool) -> None:
    demand: dict[str, Any] = {"response_format": schema_format(SCHEMA), "of": "harmony", "control": control}
    assert lets_pass('<|channel|>final<|message|>{"a": 1}', **demand)
    assert lets_pass(
        '<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>{"a": 1}', **demand
    )
    assert not lets_pass('{"a": 1}', **demand)


@pytest.mark.parametrize("of", FORMATS)
def test_every_format_lets_a_model_choose_between_a_call_and_a_schema(of: str) -> None:
    opener = FORMATS[of].content_opener
    demand: dict[str, Any] = {"tools": (AGE,), "response_format": schema_format(SCHEMA), "of": of}
    assert lets_pass(f'{opener}{{"a": 1}}', **demand)


@pytest.mark.parametrize(
    ("demands", "param", "words"),
    [
        ({"choice": "required"}, "tool_choice", "tools is empty"),
        ({"choice": Named("b"), "tools": (AGE,)}, "tool_choice", "'b', tools has: age"),
        ({"choice": Named("b")}, "tool_choice", "tools has: none"),
        (
            {"grammar": {"type": "regex", "value": "a"}, "response_format": {"type": "json_object"}},
            "grammar",
            "exclude each other",
        ),
        ({"grammar": {"type": "regex", "value": "a"}, "tools": (AGE,), "choice": "required"}, "grammar", "tool_choice"),
        ({"grammar": {"type": "gbnf", "value": "a"}}, "grammar", "regex, json_schema, lark or llguidance"),
        ({"grammar": {"type": "regex", "value": 5}}, "grammar", "regex, json_schema, lark or llguidance"),
        ({"grammar": {"type": "regex", "value": "("}}, "grammar", "invalid regex"),
        ({"grammar": {"type": "lark", "value": "start: nowhere"}}, "grammar", "nowhere"),
        ({"grammar": {"type": "llguidance", "value": "{"}}, "grammar", "cannot be enforced"),
        ({"response_format": {"type": "xml"}}, "response_format", "'xml'"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "must be a JSON schema"),
        ({"response_format": schema_format(True)}, "response_format", "must be a JSON schema"),
        ({"response_format": schema_format({"type": "number", "not": {}}, strict=True)}, "response_format", '"not"'),
        ({"response_format": schema_format({"type": "strnig"})}, "response_format", "strnig"),
        (
            {"tools": (Tool("a", parameters={"not": {"const": {}}}, strict=True),), "choice": "required"},
            "tools",
            '"not"',
        ),
        (
            {"grammar": {"type": "regex", "value": "a" * MAX_GRAMMAR_LENGTH}},
            "grammar",
            f"{MAX_GRAMMAR_LENGTH:,} are the most",
        ),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(demands: dict[str, Any], param: str, words: str) -> None:
    error = refusal(**demands)
    assert error.param == param
    assert words in str(error)


def test_a_schema_that_need_not_be_strict_is_followed_as_far_as_it_can_be() -> None:
    schema = {**SCHEMA, "not": {"const": {}}, "properties": {"a": {"type": "integer"}, "b": {"format": "colour"}}}
    assert lets_pass('{"a": 1}', response_format=schema_format(schema))
    assert not lets_pass("{}", response_format=schema_format(schema))


def test_schemas_may_refer_to_their_own_parts() -> None:
    schema = {"$defs": {"n": {"type": "integer"}}, "type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}}
    assert lets_pass('{"a": 1}', response_format=schema_format(schema))
    tool = Tool("age", parameters=schema, strict=True)
    for of in ("hermes", "qwen3-coder", "gemma"):
        grammar = demanded(of, tools=(tool,), choice="required")
        assert grammar


def test_a_grammar_is_text_that_llguidance_reads() -> None:
    grammar = demanded(grammar={"type": "lark", "value": 'start: "é"'})
    assert grammar is not None
    assert json.loads(grammar)["grammars"][1] == {"name": "own", "lark_grammar": 'start: "é"'}
