"""Arguments that are bare text between tags, re-encoded as JSON with the types of the tool's schema.

A string is passed on as it arrives. An argument of another possible type is read as a whole first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Source, Waiting


class TaggedArguments:
    """The arguments of one call, passed to ``calls`` as a JSON object.

    Args:
        tool: the called tool; a tool without a schema if it is unknown.
        calls: collects the call, which has begun.
        trimmed: whether one line break on either side of a value belongs to the tags.
    """

    __slots__ = ("_calls", "_first", "_tool", "_trimmed")

    def __init__(self, tool: Tool, calls: Calls, *, trimmed: bool) -> None:
        self._tool = tool
        self._calls = calls
        self._trimmed = trimmed
        self._first = True

    def read(self, source: Source, name: str, end: str) -> Waiting:
        """Read the value of ``name`` up to and including the tag ``end``.

        Raises:
            Malformed: the text ends without it.
        """
        if self._tool.is_text(name):
            self._name(name)
            self._calls.arguments('"')
            text = _Text(self._calls, trimmed=self._trimmed)
            ended = yield from source.pour((end,), text.push)
            if not ended:
                # Raises: the string stays open, so that the arguments cannot be mistaken for complete ones.
                yield from source.expect(end)
            self._calls.arguments('"')
            return
        raw = yield from source.until(end)
        if self._trimmed:
            raw = raw.removeprefix("\n").removesuffix("\n")
        self._name(name)
        self._calls.arguments(self._tool.argument(name, raw))

    def end(self) -> None:
        """End the call."""
        self._calls.arguments("{}" if self._first else "}")
        self._calls.end()

    def _name(self, name: str) -> None:
        self._calls.arguments("{" if self._first else ", ")
        self._first = False
        self._calls.arguments(f"{json.dumps(name, ensure_ascii=False)}: ")


class _Text:
    """Passes a string on as it arrives, without the line breaks that belong to its tags."""

    __slots__ = ("_calls", "_has_started", "_held", "_trimmed")

    def __init__(self, calls: Calls, *, trimmed: bool) -> None:
        self._calls = calls
        self._trimmed = trimmed
        self._has_started = False
        self._held = ""

    def push(self, text: str) -> None:
        if self._trimmed:
            if not self._has_started:
                text = text.removeprefix("\n")
            text = self._held + text
            self._held = "\n" if text.endswith("\n") else ""
            text = text.removesuffix("\n")
        self._has_started = True
        if text:
            self._calls.arguments(json.dumps(text, ensure_ascii=False)[1:-1])


def value(lark: Lark, tool: Tool, schema: Mapping[str, Any], end: str) -> str:
    """Return the expression of a bare value of ``schema``, up to and including ``end``.

    A string ends at the tag in ``end``, whatever white space is before it.
    """
    schema = tool.resolve(schema)
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(choices, list) and all(isinstance(choice, str) for choice in choices):
        return f"({' | '.join(lark.text(choice) or lark.rule('//') for choice in choices)}) {lark.text(end)}"
    types = tool.types(schema)
    if not types or "string" in types:
        return lark.text_until(end.lstrip())
    definitions = {key: tool.parameters[key] for key in ("$defs", "definitions") if key in tool.parameters}
    return f"{lark.json({**definitions, **schema}, strict=tool.strict)} {lark.text(end)}"


def members(tool: Tool) -> list[tuple[str, Mapping[str, Any], bool]]:
    """Return (name, schema, whether it is required) of the arguments of ``tool``, in the order of its schema."""
    properties = tool.parameters.get("properties")
    listed = properties if isinstance(properties, Mapping) else {}
    required = tool.parameters.get("required")
    names = frozenset(required) if isinstance(required, list) else frozenset()
    return [(name, schema if isinstance(schema, Mapping) else {}, name in names) for name, schema in listed.items()]
