"""Gemma 4 and FunctionGemma. Gemma 3 has no format of its own, and gets instructions for the generic one.

    <|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|>
    <start_function_call>call:get_weather{city:<escape>Paris<escape>,days:3}<end_function_call>

Strings stand between special delimiters, without escapes; keys are bare. The arguments are re-encoded as JSON.

Sources: https://ai.google.dev/gemma/docs/capabilities/text/function-calling-gemma4 and
https://ai.google.dev/gemma/docs/functiongemma/formatting-and-best-practices; the chat templates of both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from functools import partial
from typing import Any

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_text import MAX_DEPTH, PYTHON_CONSTANTS, decode, string
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Malformed, Source, Waiting
from modelyard.engine.formats.tagged import members

_BARE = re.compile(r'[^,:{}\[\]"<]+')
_MAX_BARE_LENGTH = 1000


def _read(delimiter: str, close: str, source: Source, calls: Calls, _: str) -> Waiting:
    yield from source.space()
    yield from source.expect("call:")
    yield from source.space()
    name = yield from source.word()
    if (yield from source.space()) != "{":
        raise Malformed
    calls.begin(name)
    yield from _value(source, calls, delimiter)
    calls.end()
    yield from source.space()
    yield from source.take(close)


def _value(source: Source, calls: Calls, delimiter: str) -> Waiting:
    """Read one value, of any depth, and pass it on as JSON."""
    closers: list[str] = []
    while True:
        character = yield from source.space()
        if character in ("{", "["):
            closer = "}" if character == "{" else "]"
            if len(closers) == MAX_DEPTH:
                raise Malformed
            source.at += 1
            calls.arguments(character)
            if (yield from source.space()) != closer:
                closers.append(closer)
                if closer == "}":
                    yield from _key(source, calls, delimiter)
                continue
            source.at += 1
            calls.arguments(closer)
        elif character == '"':
            yield from string(source, calls.arguments)
        elif (yield from source.take(delimiter)):
            yield from _text(source, calls, delimiter)
        else:
            calls.arguments(_atom((yield from _bare(source))))
        if not (yield from _next_value(source, calls, delimiter, closers)):
            return


def _next_value(source: Source, calls: Calls, delimiter: str, closers: list[str]) -> Generator[None, None, bool]:
    """Read from the end of a value up to the next one, and return whether there is one.

    closers: brackets that close the open arrays and objects, the innermost last.
    """
    while closers:
        character = yield from source.space()
        if character == ",":
            source.at += 1
            calls.arguments(", ")
            if closers[-1] == "}":
                yield from source.space()
                yield from _key(source, calls, delimiter)
            return True
        if character == closers[-1]:
            source.at += 1
            calls.arguments(closers.pop())
        elif (yield from source.ends()):
            calls.arguments("".join(reversed(closers)))
            closers.clear()
        else:
            raise Malformed
    return False


def _key(source: Source, calls: Calls, delimiter: str) -> Waiting:
    if (yield from source.take(delimiter)):
        yield from _text(source, calls, delimiter)
    elif (yield from source.peek()) == '"':
        yield from string(source, calls.arguments)
    else:
        key = yield from _bare(source)
        # Passed on only behind its colon: text that looks like a call up to here may be prose.
        if (yield from source.space()) != ":":
            raise Malformed
        calls.arguments(json.dumps(key, ensure_ascii=False))
    if (yield from source.space()) != ":":
        raise Malformed
    source.at += 1
    calls.arguments(": ")


def _text(source: Source, calls: Calls, delimiter: str) -> Waiting:
    calls.arguments('"')
    ended = yield from source.pour(
        (delimiter,), lambda text: calls.arguments(json.dumps(text, ensure_ascii=False)[1:-1])
    )
    if not ended:
        raise Malformed
    calls.arguments('"')


def _bare(source: Source) -> Generator[None, None, str]:
    word = (yield from source.run(_BARE, _MAX_BARE_LENGTH)).strip()
    if not word:
        raise Malformed
    return word


def _atom(word: str) -> str:
    """Return a bare word as JSON: a number or a constant if it is one, else a string that lacks its delimiters."""
    word = PYTHON_CONSTANTS.get(word, word)
    try:
        decode(word)
    except ValueError:
        return json.dumps(word, ensure_ascii=False)
    return word


def _call(delimiter: str, close: str, lark: Lark, tool: Tool) -> str:
    body = _object(lark, tool, tool.parameters, delimiter, 0)
    return f"{lark.text(tool.name)} {body} {lark.text(close)}"


# Below this depth a schema is not enforced, so that a recursive schema has a finite grammar.
_MAX_GRAMMAR_DEPTH = 6


def _object(lark: Lark, tool: Tool, schema: Mapping[str, Any], delimiter: str, depth: int) -> str:
    """Return the expression of an object with its members in the order of the schema.

    Each member has a rule for being the first one, and one for following a comma.
    """
    first, later = "", ""
    for name, member, is_required in reversed(members(Tool(tool.name, parameters=schema))):
        pair = lark.rule(f"{lark.text(name + ':')} {_any(lark, tool, member, delimiter, depth + 1)}")
        alone, behind = f"{pair} {later}".strip(), f'"," {pair} {later}'.strip()
        first = lark.rule(alone if is_required else f"{alone} | {first or _EMPTY}")
        later = lark.rule(behind if is_required else f"{behind} | {later or _EMPTY}")
    return f'"{{" {first} "}}"'


_EMPTY = '""'

_PLAIN = {
    "integer": r"/-?(0|[1-9][0-9]{0,17})/",
    "number": r"/-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,3})?/",
    "boolean": '("true" | "false")',
    "null": '"null"',
}


def _any(lark: Lark, tool: Tool, schema: Mapping[str, Any], delimiter: str, depth: int) -> str:
    schema = tool.resolve(schema)
    text = f"{lark.text(delimiter)} {lark.text_until(delimiter)}"
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(choices, list):
        return f"({' | '.join(_choice(lark, choice, delimiter) for choice in choices)})"
    types = tool.types(schema)
    if depth > _MAX_GRAMMAR_DEPTH:
        types -= {"array", "object"}
    expressions = [_PLAIN[kind] for kind in sorted(types) if kind in _PLAIN]
    if "array" in types:
        expressions.append(_array(lark, tool, schema, delimiter, depth))
    if "object" in types:
        expressions.append(_object(lark, tool, schema, delimiter, depth))
    if "string" in types or not expressions:
        expressions.append(text)
    return f"({' | '.join(lark.rule(expression) for expression in expressions)})"


def _array(lark: Lark, tool: Tool, schema: Mapping[str, Any], delimiter: str, depth: int) -> str:
    items = schema.get("items")
    item = lark.rule(_any(lark, tool, items if isinstance(items, Mapping) else {}, delimiter, depth + 1))
    return f'"[" ({item} ("," {item})*)? "]"'


def _choice(lark: Lark, choice: object, delimiter: str) -> str:
    return lark.text(f"{delimiter}{choice}{delimiter}" if isinstance(choice, str) else json.dumps(choice))


def _format(name: str, opener: str, delimiter: str, close: str) -> ToolFormat:
    return ToolFormat(
        name=name,
        read=partial(_read, delimiter, close),
        openers=(opener,),
        markers=frozenset((opener, delimiter, close)),
        shape=Shape(f"{opener}call:", f"{opener}call:"),
        call=partial(_call, delimiter, close),
        closers=(close,),
    )


GEMMA = _format("gemma", "<|tool_call>", '<|"|>', "<tool_call|>")
FUNCTION_GEMMA = _format("function-gemma", "<start_function_call>", "<escape>", "<end_function_call>")
