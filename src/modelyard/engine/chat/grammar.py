"""What a request demands of its answer, as one grammar for llguidance: a schema, a grammar of its own, or calls.

The grammar is that of the answer: reasoning before it stays free.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from llguidance import LLMatcher

from modelyard.engine.formats.format import Named, ToolChoice, ToolFormat
from modelyard.engine.formats.lark import Lark, TokenId
from modelyard.engine.formats.reasoning import ReasoningFormat
from modelyard.engine.formats.schema import Tool
from modelyard.engine.guidance.grammar_text import Grammar
from modelyard.errors import InvalidRequest

# A grammar of this size compiles in well under a second; a body may hold fifty times as much.
MAX_GRAMMAR_LENGTH = 1_000_000

_JSON_OBJECT: Mapping[str, Any] = {"type": "object"}


def grammar_of(
    *,
    tool_format: ToolFormat,
    token_id: TokenId,
    tools: Sequence[Tool] = (),
    choice: ToolChoice | Literal["none"] = "auto",
    parallel: bool = True,
    response_format: Mapping[str, Any] | None = None,
    grammar: Mapping[str, Any] | None = None,
    reasoning: ReasoningFormat | None = None,
    prompt_ends_in_reasoning: bool = False,
) -> Grammar | None:
    """The grammar that a request's answer must follow; None where it is free.

    Calls are enforced where they are required, or where one of the tools is strict; then those that the model chooses
    to make follow their schemas. With a schema for the answer as well, the model writes either of the two.

    Args:
        tool_format: how the model writes calls.
        token_id: finds the ids of control tokens by their text.
        tools: those of the request.
        choice: its ``tool_choice``.
        parallel: its ``parallel_tool_calls``.
        response_format: OpenAI's, as it was sent: ``text``, ``json_object`` or ``json_schema``.
        grammar: the reference's, as it was sent: ``type`` ``regex``, ``json_schema``, ``lark`` or ``llguidance``, and
            ``value``.
        reasoning: how the model reasons.
        prompt_ends_in_reasoning: its reasoning was opened by the prompt.

    Raises:
        InvalidRequest: the parts exclude each other, or it is too long. Whether llguidance can enforce it is found out
            by ``guidance.trial``.
    """
    schema, strict = _answer_schema(response_format)
    if isinstance(choice, Named) and choice.name not in {tool.name for tool in tools}:
        known = ", ".join(tool.name for tool in tools) or "none"
        raise InvalidRequest(f"tool_choice names the function '{choice.name}', tools has: {known}.", "tool_choice")
    if choice == "required" and not tools:
        raise InvalidRequest("tool_choice is 'required', but tools is empty. Name the tools.", "tool_choice")
    calls = choice not in ("none", "auto")
    if grammar is not None:
        if schema is not None:
            raise InvalidRequest("grammar and response_format exclude each other. Send one of them.", "grammar")
        if calls:
            raise InvalidRequest("grammar excludes a tool_choice that requires a call. Send one of them.", "grammar")
        lead = tool_format, token_id, reasoning, prompt_ends_in_reasoning
        return _grammar(_own(grammar, *lead), "grammar")
    may_call = choice == "auto" and bool(tools)
    if calls or (may_call and (schema is not None or any(tool.strict for tool in tools))):
        assert choice != "none"
        text = tool_format.grammar(
            [tool if choice != "auto" or tool.strict else _loose(tool) for tool in tools],
            choice,
            parallel=parallel,
            token_id=token_id,
            reasoning=reasoning,
            prompt_ends_in_reasoning=prompt_ends_in_reasoning,
            content=schema,
            strict_content=strict,
        )
        return _grammar(text, "tools")
    if schema is None:
        return None
    lark = _lark(tool_format, token_id, reasoning)
    answer = lark.json(schema, strict=strict)
    return _grammar(_behind(lark, answer, tool_format, reasoning, prompt_ends_in_reasoning), "response_format")


def _grammar(text: str, param: str) -> Grammar:
    if len(text) > MAX_GRAMMAR_LENGTH:
        raise InvalidRequest(
            f"{param} makes a grammar of {len(text):,} characters; {MAX_GRAMMAR_LENGTH:,} are the most. Shorten it.",
            param,
        )
    return Grammar(text, param)


def _answer_schema(response_format: Mapping[str, Any] | None) -> tuple[Mapping[str, Any] | None, bool]:
    """The schema that an answer must follow, and whether it must in all; None for free text."""
    match response_format:
        case None | {"type": "text"}:
            return None, False
        case {"type": "json_object"}:
            return _JSON_OBJECT, False
        case {"type": "json_schema", "json_schema": {"schema": Mapping() as schema} as named}:
            return schema, bool(named.get("strict"))
        case {"type": "json_schema"}:
            raise InvalidRequest(
                "response_format.json_schema.schema must be a JSON schema, an object.", "response_format"
            )
        case _:
            raise InvalidRequest(
                f"response_format.type must be text, json_object or json_schema, not {response_format.get('type')!r}.",
                "response_format",
            )


def _loose(tool: Tool) -> Tool:
    """A tool whose arguments may be any object, as is right for one that is not strict and not required."""
    return Tool(tool.name, parameters=_JSON_OBJECT)


def _own(
    grammar: Mapping[str, Any],
    tool_format: ToolFormat,
    token_id: TokenId,
    reasoning: ReasoningFormat | None,
    inside: bool,
) -> str:
    lark = _lark(tool_format, token_id, reasoning)
    match grammar:
        case {"type": "json_schema", "value": Mapping() as schema}:
            answer = lark.json(schema, strict=True)
            return _behind(lark, answer, tool_format, reasoning, inside)
        case {"type": "regex", "value": str() as regex}:
            own = json.loads(LLMatcher.grammar_from_regex(regex))["grammars"][0]["lark_grammar"]
        case {"type": "lark", "value": str() as own}:
            pass
        case {"type": "llguidance", "value": str() | Mapping() as value}:
            # A list of grammars that refer to each other, which only its author can put behind reasoning.
            return value if isinstance(value, str) else json.dumps(value)
        case _:
            raise InvalidRequest(
                "grammar must have a type of regex, json_schema, lark or llguidance, and a value: text, or an object "
                "for json_schema and llguidance.",
                "grammar",
            )
    lead = _behind(lark, "@own", tool_format, reasoning, inside)
    return json.dumps({"grammars": [{"lark_grammar": lead}, {"name": "own", "lark_grammar": own}]})


def _lark(tool_format: ToolFormat, token_id: TokenId, reasoning: ReasoningFormat | None) -> Lark:
    return Lark(token_id, tool_format.markers | (reasoning.markers if reasoning else frozenset()))


def _behind(lark: Lark, answer: str, tool_format: ToolFormat, reasoning: ReasoningFormat | None, inside: bool) -> str:
    start = f"{lark.text(tool_format.content_opener)} {answer}".lstrip()
    return lark.grammar(tool_format.after_reasoning(lark, start, reasoning, inside))
