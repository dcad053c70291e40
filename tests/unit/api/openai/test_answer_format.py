"""Each client says in its own words what an answer must look like; all of them mean the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from modelyard.api.anthropic.schema import MessagesRequest
from modelyard.api.ollama.schema import ChatRequest
from modelyard.api.openai.responses.history import conversation_of
from modelyard.api.openai.responses.schema import ResponsesRequest
from modelyard.api.openai.schema import ChatCompletionRequest, CompletionRequest
from modelyard.engine.chat.grammar import AnswerConstraints, grammar_of
from modelyard.engine.formats.answer_grammar import AnswerGrammar
from modelyard.engine.formats.families.generic import GENERIC
from modelyard.engine.guidance.grammar_text import Grammar
from modelyard.errors import InvalidRequest
from modelyard.yard.requests.requests import Request

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TURNS = [{"role": "user", "content": "Hello"}]
GBNF = 'root ::= "yes" | "no"'


def chat(**fields: Any) -> Request:
    return ChatCompletionRequest.model_validate({"messages": TURNS, **fields}).checked()


def completion(**fields: Any) -> Request:
    return CompletionRequest.model_validate({"prompt": "Hello", **fields}).checked()[0]


def anthropic(**fields: Any) -> Request:
    return MessagesRequest.model_validate({"messages": TURNS, "max_tokens": 9, **fields}).checked()


def ollama(**fields: Any) -> Request:
    body = ChatRequest.model_validate({"messages": TURNS, **fields})
    return body.to_request(body.chat())


def responses(**fields: Any) -> Request:
    body = ResponsesRequest.model_validate({"input": "Hello", **fields})
    conversation = conversation_of((), body.input)
    return body.checked(conversation, body.offered(conversation))


def grammar(request: Request) -> Grammar | None:
    constraints = AnswerConstraints(response_format=request.response_format, grammar=request.grammar)
    return grammar_of(AnswerGrammar(GENERIC, lambda _: None), constraints)


SPELLINGS: list[dict[str, Any]] = [
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
    {"response_format": {"type": "json_schema", "schema": SCHEMA, "name": "x"}},
    {"response_format": {"type": "json_object", "schema": SCHEMA}},
    {"json_schema": SCHEMA},
    {"grammar": {"type": "json_schema", "value": SCHEMA}},
    {"guided_json": SCHEMA},
    {"guided_json": json.dumps(SCHEMA)},
    {"structured_outputs": {"json": SCHEMA}},
    {"structured_outputs": {"json": json.dumps(SCHEMA), "whitespace_pattern": " *"}},
]


@pytest.mark.parametrize("take", [chat, completion])
@pytest.mark.parametrize("fields", SPELLINGS)
def test_all_spellings_of_a_schema_make_one_grammar(take: Any, fields: dict[str, Any]) -> None:
    assert grammar(take(**fields)) == grammar(chat(**SPELLINGS[0]))


def test_other_dialects_make_the_same_grammar() -> None:
    expected = grammar(chat(**SPELLINGS[0]))
    assert grammar(anthropic(output_format={"type": "json_schema", "schema": SCHEMA})) == expected
    assert grammar(anthropic(output_config={"format": {"type": "json_schema", "schema": SCHEMA}})) == expected
    assert grammar(ollama(format=SCHEMA)) == expected
    named = {"type": "json_schema", "name": "x", "schema": SCHEMA}
    assert grammar(responses(text={"format": named})) == expected


def test_an_object_of_any_kind_is_spelt_in_many_ways_too() -> None:
    expected = grammar(chat(response_format={"type": "json_object"}))
    assert expected is not None
    assert grammar(chat(structured_outputs={"json_object": True})) == expected
    assert grammar(ollama(format="json")) == expected
    assert grammar(responses(text={"format": {"type": "json_object"}})) == expected


@pytest.mark.parametrize("take", [chat, completion])
@pytest.mark.parametrize(
    "spellings",
    [
        [{"grammar": GBNF}, {"guided_grammar": GBNF}, {"structured_outputs": {"grammar": GBNF}}],
        [{"guided_choice": ["yes", "no"]}, {"structured_outputs": {"choice": ["yes", "no"]}}],
        [
            {"grammar": {"type": "regex", "value": "a+"}},
            {"guided_regex": "a+"},
            {"structured_outputs": {"regex": "a+"}},
        ],
        [{"grammar": {"type": "lark", "value": "start: /a/"}}, {"guided_grammar": "start: /a/"}],
        [{"grammar": ""}, {"response_format": {"type": "text"}}, {"structured_outputs": {}}, {}],
    ],
)
def test_texts_and_grammars_are_spelt_in_many_ways(take: Any, spellings: list[dict[str, Any]]) -> None:
    assert len({grammar(take(**fields)) for fields in spellings}) == 1


def test_what_is_not_enforced_is_named_by_the_field_that_was_sent() -> None:
    schema = {"type": "string", "pattern": "(?=a)b"}
    taken: dict[str, Request] = {
        "response_format": chat(response_format={"type": "json_schema", "schema": schema}),
        "guided_json": chat(guided_json=schema),
        "structured_outputs.json": completion(structured_outputs={"json": schema}),
        "format": ollama(format=schema),
        "output_config.format": anthropic(output_config={"format": {"type": "json_schema", "schema": schema}}),
        "text.format": responses(text={"format": {"type": "json_schema", "name": "x", "schema": schema}}),
    }
    for param, request in taken.items():
        made = grammar(request)
        assert made is not None
        assert (made.param, made.dropped) == (param, ("pattern (?=...)",))


@pytest.mark.parametrize(
    ("fields", "wording"),
    [
        ({"guided_json": SCHEMA, "guided_regex": "a"}, "'guided_json' and 'guided_regex' exclude"),
        ({"response_format": {"type": "json_object"}, "grammar": GBNF}, "'response_format' and 'grammar' exclude"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "'structured_outputs.regex' and"),
        ({"guided_json": "[1"}, "must be an object"),
        ({"response_format": {"type": "json_schema"}}, "must be a JSON schema"),
        ({"response_format": {"type": "json_schema", "schema": {}, "json_schema": {"schema": SCHEMA}}}, "two schemas"),
    ],
)
def test_two_constraints_and_such_that_are_none_are_refused_by_name(fields: dict[str, Any], wording: str) -> None:
    with pytest.raises(InvalidRequest, match=wording):
        chat(**fields)


TAG = {"triggers": ["<f="], "structures": [{"begin": "<f=a>", "schema": SCHEMA, "end": "</f>"}]}


def test_structures_within_free_text_follow_their_triggers() -> None:
    made = grammar(chat(structured_outputs={"structural_tag": TAG}))
    assert made == grammar(chat(structured_outputs={"structural_tag": json.dumps(TAG)}))
    matcher = LLMatcher(LLTokenizer("byte"), made or "", log_level=0)
    for text, is_valid in (("Hm.", True), ('So <f=a>{"a": 1}</f>, or.', True), ("So <f=b>", False), ("<f=a>x", False)):
        tokens = list(text.encode())
        assert (matcher.deep_copy().validate_tokens(tokens) == len(tokens)) is is_valid, text


@pytest.mark.parametrize(
    "tag", [{}, {**TAG, "triggers": ["<g="]}, {**TAG, "structures": [{"begin": "<f="}]}, {**TAG, "triggers": [1]}]
)
def test_structures_that_are_none_are_refused(tag: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="structural_tag"):
        grammar(chat(structured_outputs={"structural_tag": tag}))


def test_anthropics_two_fields_may_repeat_but_not_contradict_each_other() -> None:
    first, second = ({"type": "json_schema", "schema": {"const": value}} for value in (1, 2))
    assert anthropic(output_format=first, output_config={"format": first}).response_format is not None
    with pytest.raises(InvalidRequest, match=r"output_config\.format"):
        anthropic(output_format=first, output_config={"format": second})


def test_a_strict_schema_with_a_part_that_cannot_be_held_is_refused_by_name() -> None:
    schema = {"type": "string", "pattern": r"\bword\b"}
    request = chat(response_format={"type": "json_schema", "json_schema": {"schema": schema, "strict": True}})
    with pytest.raises(InvalidRequest, match=r"pattern \\b"):
        grammar(request)
