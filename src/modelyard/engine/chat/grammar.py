"""The grammar of an answer, for llguidance, from the constraints of a request: a schema, a grammar, or tool calls.

The grammar covers the answer; reasoning before it stays free.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import is_lark_syntax

from modelyard.engine.chat.gbnf import InvalidGbnf, lark_of
from modelyard.engine.formats.answer_grammar import AnswerGrammar, Named, ToolChoice
from modelyard.engine.formats.schema import Tool
from modelyard.engine.guidance.grammar_text import Grammar
from modelyard.errors import InvalidRequest

# A grammar of this length compiles in well under a second; a request body may hold fifty times as much.
MAX_GRAMMAR_LENGTH = 1_000_000

_JSON_OBJECT: Mapping[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class AnswerConstraints:
    """The fields of a request that constrain its answer.

    Attributes:
        tools: the functions that the model may call.
        choice: ``tool_choice``.
        parallel: ``parallel_tool_calls``.
        response_format: in OpenAI's shape: ``text``, ``json_object`` or ``json_schema``.
        grammar: in the shape of mistral.rs: ``type`` ``regex``, ``json_schema``, ``lark`` or ``llguidance``, and
            ``value``; or ``choice`` with texts, ``grammar`` with the text of one in GBNF or Lark, or
            ``structural_tag`` with ``triggers`` and ``structures``, as vLLM has it. ``param`` of either names the field
            of the request that it was sent in.
    """

    tools: Sequence[Tool] = ()
    choice: ToolChoice | Literal["none"] = "auto"
    parallel: bool = True
    response_format: Mapping[str, Any] | None = None
    grammar: Mapping[str, Any] | None = None

    @property
    def requires_call(self) -> bool:
        """Whether the answer must be a call."""
        return self.choice not in ("none", "auto")

    @property
    def may_call(self) -> bool:
        """Whether the model may choose to call a tool."""
        return self.choice == "auto" and bool(self.tools)


def grammar_of(answer: AnswerGrammar, constraints: AnswerConstraints) -> Grammar | None:
    """Return the grammar that a request's answer must follow; None if the answer is free.

    Calls are constrained if one is required, or if one of the tools is strict; in the latter case calls that the model
    chooses to make follow the schemas. If there is also a schema for the answer, the model writes either a call or
    content of that schema.

    Raises:
        InvalidRequest: the constraints exclude each other, the grammar is too long, or a schema that must be enforced
            as a whole has a part that cannot be. ``guidance.trial`` finds out whether llguidance can enforce the rest.
    """
    schema, is_strict = _answer_schema(constraints.response_format)
    _check_choice(constraints)
    if constraints.grammar is not None:
        _check_own_grammar(constraints, schema)
        text = _own_grammar(answer, constraints.grammar)
        return _finished(answer, text, constraints.grammar.get("param", "grammar"))
    has_strict_tool = any(tool.strict for tool in constraints.tools)
    if constraints.requires_call or (constraints.may_call and (schema is not None or has_strict_tool)):
        return _finished(answer, _call_grammar(answer, constraints, schema, is_strict=is_strict), "tools", closes=False)
    if schema is None or constraints.response_format is None:
        return None
    text = answer.of_content(answer.lark.json(schema, strict=is_strict))
    return _finished(answer, text, constraints.response_format.get("param", "response_format"))


def _check_choice(constraints: AnswerConstraints) -> None:
    choice, tools = constraints.choice, constraints.tools
    if isinstance(choice, Named) and choice.name not in {tool.name for tool in tools}:
        known = ", ".join(tool.name for tool in tools) or "none"
        raise InvalidRequest(f"tool_choice names the function '{choice.name}', tools has: {known}.", "tool_choice")
    if choice == "required" and not tools:
        raise InvalidRequest("tool_choice is 'required', but tools is empty. Name the tools.", "tool_choice")


def _check_own_grammar(constraints: AnswerConstraints, schema: Mapping[str, Any] | None) -> None:
    if schema is not None:
        raise InvalidRequest("grammar and response_format exclude each other. Send one of them.", "grammar")
    if constraints.requires_call:
        raise InvalidRequest("grammar excludes a tool_choice that requires a call. Send one of them.", "grammar")


def _call_grammar(
    answer: AnswerGrammar, constraints: AnswerConstraints, schema: Mapping[str, Any] | None, *, is_strict: bool
) -> str:
    assert constraints.choice != "none"
    return answer.of_calls(
        [tool if constraints.choice != "auto" or tool.strict else _loose(tool) for tool in constraints.tools],
        constraints.choice,
        parallel=constraints.parallel,
        content=schema,
        strict_content=is_strict,
    )


def _finished(answer: AnswerGrammar, text: str, param: str, *, closes: bool = True) -> Grammar:
    """Return the grammar ``text``, made with ``answer`` of the field ``param``.

    Raises:
        InvalidRequest: it is too long, or a strict schema has a part that cannot be enforced.
    """
    if len(text) > MAX_GRAMMAR_LENGTH:
        raise InvalidRequest(
            f"{param} makes a grammar of {len(text):,} characters; {MAX_GRAMMAR_LENGTH:,} are the most. Shorten it.",
            param,
        )
    if answer.lark.refused:
        raise InvalidRequest(
            f"{param} cannot be enforced strictly: {', '.join(answer.lark.refused)} cannot be expressed. Leave it out; "
            "or leave out 'strict', and the rest is enforced.",
            param,
        )
    return Grammar(text, param, tuple(answer.lark.dropped), closes=closes)


def _answer_schema(response_format: Mapping[str, Any] | None) -> tuple[Mapping[str, Any] | None, bool]:
    """Return the schema of an answer, None for free text, and whether all of it must be enforced."""
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
    """Return a tool whose arguments may be any object, for a tool that is neither strict nor required."""
    return Tool(tool.name, parameters=_JSON_OBJECT)


def _tagged(answer: AnswerGrammar, tags: Mapping[str, Any], param: str) -> str:
    """Return the grammar of free text in which a trigger begins one of the structures: JSON between two texts.

    Source: https://docs.vllm.ai/en/latest/features/structured_outputs.html.
    """
    lark, blocks = answer.lark, []
    match tags:
        case {"triggers": [*triggers], "structures": [*structures]} if triggers and structures:
            pass
        case _:
            raise InvalidRequest(f"{param} must have 'triggers' and 'structures', of which none is empty.", param)
    for trigger in triggers:
        bodies = []
        for structure in structures:
            match structure:
                case {"begin": str() as begin, "end": str() as end, "schema": Mapping() as schema}:
                    if isinstance(trigger, str) and trigger and begin.startswith(trigger):
                        rest = lark.text(begin.removeprefix(trigger))
                        bodies.append(f"{rest} {lark.json(schema, strict=False)} {lark.text(end)}")
                case _:
                    raise InvalidRequest(
                        f"{param}.structures must each have a 'begin', a 'schema' and an 'end'.", param
                    )
        if not bodies:
            raise InvalidRequest(f"{param} has the trigger {trigger!r}, with which no structure begins.", param)
        lead = lark.rule(rf"/(.|\n)*/ {json.dumps(trigger)}", "[lazy]")
        blocks.append(f"{lead} ({' | '.join(bodies)})")
    return answer.of_content(f"({' | '.join(blocks)})* {lark.any_text()}")


def _gbnf(text: str, param: str) -> str:
    try:
        return lark_of(text)
    except InvalidGbnf as invalid:
        raise InvalidRequest(f"{param} is no grammar in GBNF: {invalid}.", param) from invalid


def _own_grammar(answer: AnswerGrammar, grammar: Mapping[str, Any]) -> str:
    """Return the grammar of an answer that follows the request's own grammar."""
    match grammar:
        case {"type": "json_schema", "value": Mapping() as schema}:
            return answer.of_content(answer.lark.json(schema, strict=False))
        case {"type": "regex", "value": str() as regex}:
            own = json.loads(LLMatcher.grammar_from_regex(regex))["grammars"][0]["lark_grammar"]
        case {"type": "lark", "value": str() as own}:
            pass
        case {"type": "grammar", "value": str() as text}:
            own = text if is_lark_syntax(text) else _gbnf(text, grammar.get("param", "grammar"))
        case {"type": "choice", "value": [*texts]} if texts and all(isinstance(each, str) for each in texts):
            own = "start: " + " | ".join(json.dumps(each, ensure_ascii=False) for each in texts)
        case {"type": "structural_tag", "value": Mapping() as tags}:
            return _tagged(answer, tags, grammar.get("param", "grammar"))
        case {"type": "llguidance", "value": str() | Mapping() as value}:
            # A list of grammars that refer to each other cannot be put behind reasoning here; its author has to do it.
            return value if isinstance(value, str) else json.dumps(value)
        case _:
            raise InvalidRequest(
                "grammar must be text, in GBNF or Lark, or have a type of regex, json_schema, lark or llguidance, and "
                "a value: text, or an object for json_schema and llguidance.",
                "grammar",
            )
    lead = answer.of_content("@own")
    return json.dumps({"grammars": [{"lark_grammar": lead}, {"name": "own", "lark_grammar": own}]})
