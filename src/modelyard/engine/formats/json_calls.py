"""Calls that are JSON objects, with the name and the arguments as members: what most formats are made of.

    {"name": "get_weather", "arguments": {"city": "Paris"}}

Read with the members in any order, with ``parameters`` for ``arguments``, and within ``function``, ``tool_call`` or
``tool_calls``, as models write it now and then. Arguments that are JSON within a string are taken out of it. A name
without arguments is a call with none.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.json_text import decode, read_string, read_value, value
from modelyard.engine.formats.lark import Lark, as_object
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Malformed, Source, Waiting

_NAME = frozenset(("name", "function"))
_ARGUMENTS = frozenset(("arguments", "parameters"))
_AROUND = frozenset(("function", "tool_call", "function_call"))
# How deep calls are looked for within each other.
_DEEPEST = 4

_BESIDE = frozenset(("id", "type"))


def read_list(source: Source, calls: Calls, *, known: bool = False) -> Waiting:
    """Read ``[call, call, …]`` from its bracket on. A bracket that never closes behind a whole call is no fault.

    Raises:
        Malformed: it is no list of calls.
    """
    yield from _list(source, calls, known, 0)


def read_object(source: Source, calls: Calls, *, known: bool = False) -> Waiting:
    """Read one call from its brace on. Faults behind whole arguments do not undo it: what is wrong there is content.

    Args:
        source: what to read.
        calls: takes the call.
        known: the name must be that of a tool, and no member may be one that calls do not have. For calls without a
            marker, which are told from JSON that is meant to be content by nothing else.

    Raises:
        Malformed: it is no call.
    """
    if not (yield from _object(source, calls, known, 0)):
        raise Malformed


def read_any(source: Source, calls: Calls, *, known: bool = False, separators: str = "") -> Waiting:
    """Read a list of calls, or one, or several behind each other.

    Args:
        source: what to read.
        calls: takes the calls.
        known: as in read_object.
        separators: characters that may stand between them, white space apart.

    Raises:
        Malformed: it is none of these.
    """
    if (yield from source.space()) == "[":
        yield from read_list(source, calls, known=known)
        return
    while True:
        yield from read_object(source, calls, known=known)
        character = yield from source.space()
        if character and character in separators:
            source.at += 1
            character = yield from source.space()
        if character != "{":
            return


def read_arguments(source: Source, calls: Calls, name: str, call_id: str | None = None) -> Waiting:
    """Read the arguments of a call whose name stands apart from them.

    Raises:
        Malformed: they are no JSON object.
    """
    if (yield from source.space()) != "{":
        raise Malformed
    calls.begin(name, call_id)
    yield from value(source, calls.arguments)
    calls.end()


def read_close(source: Source, closers: Sequence[str]) -> Waiting:
    """Read one of ``closers``, if one comes. Brackets before it that close nothing count for nothing."""
    while (yield from source.space()) in ("}", "]"):
        source.at += 1
    for closer in closers:
        if (yield from source.take(closer)):
            return


def _list(source: Source, calls: Calls, known: bool, depth: int) -> Waiting:
    yield from source.expect("[")
    found = False
    while (yield from source.space()) == "{":
        found = (yield from _object(source, calls, known, depth)) or found
        if (yield from source.space()) != ",":
            break
        source.at += 1
    if not found:
        raise Malformed
    if (yield from source.take("]")):
        calls.settle()


def _object(source: Source, calls: Calls, known: bool, depth: int) -> Generator[None, None, bool]:
    """As read_object; returns whether a call was in it."""
    if depth > _DEEPEST:
        raise Malformed
    yield from source.expect("{")
    name: str | None = None
    held: str | None = None
    told = False
    while (yield from source.space()) == '"':
        key = yield from read_string(source)
        if (yield from source.space()) != ":":
            break
        source.at += 1
        first = yield from source.space()
        if key in _NAME and first == '"' and name is None and not told:
            name = yield from read_string(source)
            if known and name not in calls.tools:
                raise Malformed
            if held is not None:
                calls.whole(name, held)
                told = True
        elif key in _ARGUMENTS and not told:
            if first == "{" and name is not None:
                calls.begin(name)
                yield from value(source, calls.arguments)
                calls.end()
                told = True
            else:
                held = yield from _held(source, first)
                if name is not None:
                    calls.whole(name, held)
                    told = True
        elif key in _AROUND and first == "{":
            told = (yield from _object(source, calls, known, depth + 1)) or told
        elif key == "tool_calls" and first == "[":
            yield from _list(source, calls, known, depth + 1)
            told = True
        elif known and not told and key not in _BESIDE:
            raise Malformed
        else:
            yield from read_value(source)
        if (yield from source.space()) != ",":
            break
        source.at += 1
    closed = yield from source.take("}")
    if not told and name is not None and closed:
        calls.whole(name, "{}")
        told = True
    if told:
        calls.settle()
    return told


def _held(source: Source, first: str) -> Generator[None, None, str]:
    """Arguments that cannot be passed on as they come."""
    text = (yield from read_string(source)) if first == '"' else (yield from read_value(source))
    if first == '"' and not text.strip():
        return "{}"
    try:
        decoded = decode(text)
    except ValueError:
        raise Malformed from None
    if decoded is None:
        return "{}"
    if not isinstance(decoded, dict):
        raise Malformed
    return text


def call(lark: Lark, tool: Tool, arguments: str = "arguments") -> str:
    """The expression of one call, as ``tojson`` writes it in chat templates."""
    head = lark.text(f'{{"name": {json.dumps(tool.name, ensure_ascii=False)}, "{arguments}": ')
    return f'{head} {lark.arguments(tool)} "}}"'


def bare_call(lark: Lark, tool: Tool, arguments: str = "arguments") -> str:
    """The expression of one call where no marker comes before it: one schema as a whole.

    So it can be told from another schema for the answer as late as where the two differ, which llguidance does for
    schemas, but not for text against a schema.
    """
    schema = {
        "type": "object",
        "properties": {
            "name": {"const": tool.name},
            arguments: _moved(as_object(tool.parameters), f"#/properties/{arguments}"),
        },
        "required": ["name", arguments],
        "additionalProperties": False,
    }
    return lark.json(schema, strict=tool.strict)


def _moved(schema: Any, to: str) -> Any:
    """``schema`` as a part of another, at ``to``: what it refers to in itself has moved with it."""
    if isinstance(schema, list):
        return [_moved(each, to) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: to + each[1:] if key == "$ref" and isinstance(each, str) and each.startswith("#") else _moved(each, to)
        for key, each in schema.items()
    }
