"""What a grammar lets a model write is a call, and the calls that models write are what it lets them write."""

from __future__ import annotations

import json
from random import Random

import pytest
from llguidance import LLMatcher

from modelyard.engine.formats.answer_grammar import AnswerGrammar, Named, ToolChoice
from modelyard.engine.formats.format import ToolFormat
from modelyard.engine.formats.reasoning import REASONING, ReasoningFormat
from modelyard.engine.formats.registry import FORMATS, control_tokens, parser
from modelyard.engine.formats.schema import Tool
from modelyard.protocol.deltas import Message, fold
from unit.engine.formats.bytes_vocabulary import BytesVocabulary
from unit.engine.formats.recorded import NOW, SEARCH, TOOLS, WEATHER, WRITE, Recorded
from unit.engine.formats.recorded_families import ALL
from unit.engine.formats.test_recorded import BY_FORMAT, readable

ENFORCEABLE = [each for each in ALL if each.enforceable]

each_format = pytest.mark.parametrize("of", FORMATS.values(), ids=lambda each: each.name)
either_vocabulary = pytest.mark.parametrize("as_tokens", [True, False], ids=["control tokens", "plain text"])


def reasoning_for(of: str) -> ReasoningFormat:
    return REASONING[BY_FORMAT.get(of, "think")]


def vocabulary(of: ToolFormat, as_tokens: bool) -> BytesVocabulary:
    return BytesVocabulary(control_tokens(of, reasoning_for(of.name)) if as_tokens else ())


def accepted(vocabulary: BytesVocabulary, grammar: str, text: str) -> str:
    """The part of ``text`` that the grammar lets pass; all of it, where the answer may end there."""
    matcher = vocabulary.matcher(grammar)
    tokens = vocabulary.tokens_of(text)
    taken = matcher.try_consume_tokens(tokens)
    if taken == len(tokens) and not matcher.is_accepting():
        return f"{text} (and more)"
    return vocabulary.text_of(tokens[:taken])


@either_vocabulary
@pytest.mark.parametrize("choice", ["required", "auto"])
@pytest.mark.parametrize("answer", ENFORCEABLE, ids=lambda each: f"{each.of}: {each.what}")
def test_recorded_calls_are_accepted(answer: Recorded, choice: ToolChoice, as_tokens: bool) -> None:
    of = FORMATS[answer.of]
    words = vocabulary(of, as_tokens)
    reasoning = reasoning_for(answer.of)
    made = AnswerGrammar(of, words.control.get, reasoning, prompt_ends_in_reasoning=answer.inside)
    grammar = made.of_calls(TOOLS, choice, parallel=True)
    assert accepted(words, grammar, answer.text) == answer.text


CLOSING = (
    "<|end|><|start|>assistant",
    "<|eom|><|start|>assistant",
    "\n</parameter>\n",
    "</parameter>\n",
    "</param>\n",
    "</atem:parameter>\n",
    "</｜DSML｜parameter>\n",
    "</｜DSML｜ parameter>\n",
    "</arg_value>",
    "</arg_value:opensource>",
    "<|close|>argument<|sep|>",
    "]<]minimax[>[</city>",
    '<|"|>',
    "<escape>",
)


def written(words: BytesVocabulary, grammar: str, seed: int, most: int = 4000) -> str:
    """What a model without any sense writes under a grammar: it draws among all tokens that are allowed.

    It is drawn to quotes, brackets, control tokens and closing tags, so that it comes to an end.
    """
    random = Random(seed)
    matcher = words.matcher(grammar)
    tokens: list[int] = []
    ends = {*b'"}]<', *range(256, len(words.tokens))}
    while len(tokens) < most:
        mask = matcher.compute_bitmask()
        allowed = [token for token in range(len(words.tokens)) if mask[token // 8] >> token % 8 & 1]
        assert allowed, words.text_of(tokens)
        near_the_end = [token for token in allowed if token in ends]
        forced = matcher.compute_ff_tokens()
        closing = words.tokens_of(random.choice(CLOSING))
        if random.random() < 0.4 and matcher.validate_tokens(closing) == len(closing):
            forced = closing
        token = random.choice(near_the_end if near_the_end and random.random() < 0.4 else allowed)
        if token == words.eos_token_id:
            return words.text_of(tokens)
        for each in forced or [token]:
            tokens.append(each)
            assert matcher.consume_token(each)
        if matcher.is_stopped():
            return words.text_of(tokens)
    pytest.fail(f"no end: {words.text_of(tokens)[:300]}")


def read(of: ToolFormat, tools: tuple[Tool, ...], text: str) -> Message:
    reader = parser(of, None, tools)
    return fold([*reader.push(text), *reader.finish()])


@either_vocabulary
@each_format
def test_whatever_a_model_writes_under_the_grammar_is_a_call(of: ToolFormat, as_tokens: bool) -> None:
    words = vocabulary(of, as_tokens)
    grammar = AnswerGrammar(of, words.control.get).of_calls((WEATHER, NOW), "required", parallel=True)
    for seed in range(6):
        text = written(words, grammar, seed)
        message = read(of, (WEATHER, NOW), text)
        assert message.tool_calls, text
        assert message.content == "", text
        for call in message.tool_calls:
            arguments = json.loads(call.arguments)
            assert call.name in ("get_weather", "now")
            if call.name == "now":
                assert arguments == {}
            else:
                kinds = {name: type(value) for name, value in arguments.items()}
                assert kinds.items() <= {"city": str, "days": int, "metric": bool}.items(), text
                assert "city" in kinds, text


@either_vocabulary
@each_format
def test_a_named_function_is_the_only_one_that_can_be_called(of: ToolFormat, as_tokens: bool) -> None:
    words = vocabulary(of, as_tokens)
    grammar = AnswerGrammar(of, words.control.get).of_calls(TOOLS, Named("now"), parallel=False)
    message = read(of, TOOLS, written(words, grammar, 1))
    assert readable(message.tool_calls) == (("now", {}),)


@each_format
def test_without_parallel_calls_there_is_one(of: ToolFormat) -> None:
    words = vocabulary(of, True)
    grammar = AnswerGrammar(of, words.control.get).of_calls((NOW,), "required", parallel=False)
    for seed in range(4):
        assert len(read(of, (NOW,), written(words, grammar, seed)).tool_calls) == 1


@either_vocabulary
@each_format
def test_a_free_choice_leaves_text_without_calls_alone(of: ToolFormat, as_tokens: bool) -> None:
    words = vocabulary(of, as_tokens)
    grammar = AnswerGrammar(of, words.control.get).of_calls(TOOLS, "auto", parallel=True)
    for text in ("", "Sun, 20 < 21.\n\nAnd `code`: é🎉"):
        assert accepted(words, grammar, text) == text


def test_a_free_choice_enforces_what_follows_a_marker() -> None:
    words = BytesVocabulary(())
    grammar = AnswerGrammar(FORMATS["hermes"], words.control.get).of_calls(TOOLS, "auto", parallel=True)
    assert accepted(words, grammar, 'So <tool_call>\n{"name": "x') == 'So <tool_call>\n{"name": "'


def test_white_space_in_arguments_is_bounded() -> None:
    words = BytesVocabulary(())
    grammar = AnswerGrammar(FORMATS["hermes"], words.control.get).of_calls(TOOLS, "required", parallel=True)
    begun = '<tool_call>\n{"name": "get_weather", "arguments": {'
    assert len(accepted(words, grammar, begun + " " * 100)) < len(begun) + 20


@each_format
def test_schemas_of_all_kinds_have_a_grammar(of: ToolFormat) -> None:
    schema = {
        "type": "object",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {"next": {"$ref": "#/$defs/node"}, "kind": {"enum": ["a", 1, None]}},
            }
        },
        "properties": {
            "root": {"$ref": "#/$defs/node"},
            "any": {},
            "either": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "number"}}]},
            "level": {"type": "integer", "minimum": 1, "maximum": 9},
        },
        "required": ["level"],
    }
    words = vocabulary(of, True)
    tool = Tool("f", parameters=schema)
    grammar = AnswerGrammar(of, words.control.get).of_calls((tool, Tool("g", parameters={})), "required", parallel=True)
    words.matcher(grammar)


def test_a_strict_tool_with_a_keyword_that_cannot_be_enforced_has_no_grammar() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "not": {"const": "b"}}}}
    words = BytesVocabulary(())

    def refusal(strict: bool) -> str:
        tool = Tool("f", parameters=schema, strict=strict)
        grammar = AnswerGrammar(FORMATS["hermes"], words.control.get).of_calls((tool,), "required", parallel=True)
        is_error, messages = LLMatcher.validate_grammar_with_warnings(grammar, words.llguidance)
        return messages[0] if is_error else ""

    assert '"not"' in refusal(strict=True)
    assert refusal(strict=False) == ""


def test_tools_with_optional_arguments_alone_may_be_called_with_any_of_them() -> None:
    words = BytesVocabulary(())
    for of in ("gemma", "function-gemma"):
        grammar = AnswerGrammar(FORMATS[of], words.control.get).of_calls((SEARCH, WRITE), "required", parallel=False)
        opener = FORMATS[of].openers[0]
        close = {"gemma": "<tool_call|>", "function-gemma": "<end_function_call>"}[of]
        for body in ("{}", "{score:1}", "{limit:null}", "{filters:{},score:1}", "{filters:{tags:[]},limit:2,score:1}"):
            text = f"{opener}call:search{body}{close}"
            assert accepted(words, grammar, text) == text
        assert accepted(words, grammar, f"{opener}call:search{{,").endswith("{")
