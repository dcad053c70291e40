"""Calls that are JSON objects with the name and the arguments as members, as in most formats.

    {"name": "get_weather", "arguments": {"city": "Paris"}}

The readers accept variants that models write now and then: the members in any order, ``parameters`` for ``arguments``,
calls within ``function``, ``tool_call`` or ``tool_calls``, arguments as JSON within a string, and a name without
arguments.
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

_NAME = frozenset(("name", "function", "tool_name"))
_ARGUMENTS = frozenset(("arguments", "parameters"))
_WRAPPERS = frozenset(("function", "tool_call", "function_call"))
_OTHER_MEMBERS = frozenset(("id", "type", "tool_call_id"))

# Limit of calls that are wrapped in each other.
_MAX_DEPTH = 4


def read_list(source: Source, calls: Calls, *, known: bool = False) -> Waiting:
    """Read ``[call, call, …]`` from its bracket on. The closing bracket may be missing behind a complete call.

    Raises:
        Malformed: it is not a list of calls.
    """
    return _list(source, calls, known, 0)


def read_items(source: Source, calls: Calls, *, known: bool = False) -> Waiting:
    """Read ``call, call, …]``, the rest of a list behind its bracket, as ``read_list`` does."""
    return _items(source, calls, known, 0)


def read_object(source: Source, calls: Calls, *, known: bool = False) -> Generator[None, None, bool]:
    """Read one call from its brace on. Malformed text behind complete arguments is content, and the call stays.

    Args:
        source: the text.
        calls: receives the call.
        known: whether the name must be that of a tool, and members that calls do not have are faults. For calls without
            a marker, which nothing else distinguishes from JSON that is content.

    Raises:
        Malformed: it is not a call.
    """
    return _CallReader(source, calls, known, 0).read(is_required=True)


def read_any(source: Source, calls: Calls, *, known: bool = False, separators: str = "") -> Waiting:
    """Read a list of calls, or one or more calls behind each other.

    Args:
        source: the text.
        calls: receives the calls.
        known: as in ``read_object``.
        separators: characters that may stand between calls, besides white space.

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
    """Read the arguments of a call whose name was read already.

    Raises:
        Malformed: they are not a JSON object.
    """
    if (yield from source.space()) != "{":
        raise Malformed
    calls.begin(name, call_id)
    yield from value(source, calls.arguments)
    calls.end()


def read_close(source: Source, closers: Sequence[str]) -> Waiting:
    """Read one of ``closers``, if one comes next, and unmatched brackets before it."""
    while (yield from source.space()) in ("}", "]"):
        source.at += 1
    for closer in closers:
        if (yield from source.take(closer)):
            return


def _list(source: Source, calls: Calls, known: bool, depth: int) -> Waiting:
    yield from source.expect("[")
    yield from _items(source, calls, known, depth)


def _items(source: Source, calls: Calls, known: bool, depth: int) -> Waiting:
    has_call = False
    while (yield from source.space()) == "{":
        has_call = (yield from _CallReader(source, calls, known, depth).read()) or has_call
        if (yield from source.space()) != ",":
            break
        source.at += 1
    if not has_call:
        raise Malformed
    if (yield from source.take("]")):
        calls.settle()


class _CallReader:
    """Reads one JSON object as a call, member by member.

    Args:
        source: the text.
        calls: receives the call.
        known: see ``read_object``.
        depth: number of objects and lists around this one.
    """

    __slots__ = ("_arguments", "_calls", "_depth", "_has_call", "_known", "_name", "_source")

    def __init__(self, source: Source, calls: Calls, known: bool, depth: int) -> None:
        self._source, self._calls, self._known, self._depth = source, calls, known, depth
        self._name: str | None = None
        self._arguments: str | None = None
        self._has_call = False

    def read(self, *, is_required: bool = False) -> Generator[None, None, bool]:
        """Read the object, and return whether a call was in it.

        Raises:
            Malformed: it is not a call, or has none although ``is_required``.
        """
        source = self._source
        if self._depth > _MAX_DEPTH:
            raise Malformed
        yield from source.expect("{")
        while (yield from source.space()) == '"':
            key = yield from read_string(source)
            if (yield from source.space()) != ":":
                break
            source.at += 1
            yield from self._member(key, (yield from source.space()))
            if (yield from source.space()) != ",":
                break
            source.at += 1
        yield from self._end()
        if self._has_call:
            self._calls.settle()
        elif is_required:
            raise Malformed
        return self._has_call

    def _end(self) -> Waiting:
        """Read the closing brace, which may be missing behind the arguments, and add the call.

        Raises:
            Malformed: the text was cut off before it.
        """
        source = self._source
        if not (yield from source.take("}")):
            if not (yield from source.more()) and source.is_cut:
                raise Malformed
            if self._arguments is None and not (yield from source.ends()):
                return
        if self._name is not None and not self._has_call:
            self._calls.whole(self._name, "{}" if self._arguments is None else self._arguments)
            self._has_call = True

    def _member(self, key: str, first: str) -> Waiting:
        """Read the value of ``key``, which begins with the character ``first``."""
        source, calls = self._source, self._calls
        if key in _NAME and first == '"' and self._name is None and not self._has_call:
            self._name = yield from read_string(source)
            if self._known and self._name not in calls.tools:
                raise Malformed
            calls.begin(self._name)
        elif key in _ARGUMENTS and not self._has_call:
            self._arguments = yield from _arguments(source, first)
        elif key in _WRAPPERS and first == "{":
            has_call = yield from _CallReader(source, calls, self._known, self._depth + 1).read()
            self._has_call = has_call or self._has_call
        elif key == "tool_calls" and first == "[":
            yield from _list(source, calls, self._known, self._depth + 1)
            self._has_call = True
        elif self._known and not self._has_call and key not in _OTHER_MEMBERS:
            raise Malformed
        else:
            yield from read_value(source)


def _arguments(source: Source, first: str) -> Generator[None, None, str]:
    """Read arguments, whose first character is ``first``, and return them as a JSON object.

    Raises:
        Malformed: they are not a JSON object, nor a string that holds one.
    """
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
    """Return the expression of one call, in the form that ``tojson`` writes in chat templates."""
    head = lark.text(f'{{"name": {json.dumps(tool.name, ensure_ascii=False)}, "{arguments}": ')
    return f'{head} {lark.arguments(tool)} "}}"'


def bare_call(lark: Lark, tool: Tool, arguments: str = "arguments") -> str:
    """Return the expression of one call without a marker, as a single schema.

    llguidance can choose between two schemas at the first character in which they differ, but not between literal text
    and a schema. So a call that is an alternative to a schema for the answer has to be a schema, too.
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
    """Return ``schema`` with its references adapted to its place ``to`` in another schema."""
    if isinstance(schema, list):
        return [_moved(each, to) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: to + each[1:] if key == "$ref" and isinstance(each, str) and each.startswith("#") else _moved(each, to)
        for key, each in schema.items()
    }
