"""Arguments between tags, as the formats of GLM, Qwen 3 Coder and their relatives have them.

Values are bare text. Whether that text is a string or another JSON value follows from the tool's schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Malformed, Source, Waiting


@dataclass(frozen=True, slots=True)
class Tags:
    """The tags around arguments, as far as they tell where a value ends.

    Attributes:
        end: the tag that closes a value.
        followers: what may follow it, behind white space. The tag is part of the value if something else follows,
            because models write about tags, too.
        argument: matches the tag that opens an argument, with its ``name``. A value ends at that of an argument that
            the tool has and the call does not have yet, although its own tag is missing.
        call: matches the end of a call and the beginning of another one. A value ends there likewise.
        call_end: matches the end of a call, which ends a value that is not closed up to the end of the answer.
    """

    end: str
    followers: tuple[str, ...]
    argument: re.Pattern[str]
    call: re.Pattern[str]
    call_end: re.Pattern[str]


class TaggedArguments:
    """The arguments of one call, collected as a JSON object.

    Args:
        name: the called function; it may be unknown.
        calls: receives the call.
        trimmed: whether one line break on either side of a value belongs to the tags.

    Attributes:
        tool: the called function; without a schema if it is unknown.
    """

    __slots__ = ("_calls", "_members", "_trimmed", "tool")

    def __init__(self, name: str, calls: Calls, *, trimmed: bool) -> None:
        self.tool = calls.tools.get(name, Tool(name, parameters={}))
        self._calls = calls
        self._trimmed = trimmed
        self._members: dict[str, str] = {}
        calls.begin(name)

    def read(self, source: Source, name: str, tags: Tags) -> Waiting:
        """Read the value of ``name`` up to and including its closing tag, which may be missing.

        Raises:
            Malformed: the text ends within the value.
        """
        self.add(name, self.tool.argument(name, (yield from self.text(source, name, tags))))

    def text(self, source: Source, name: str, tags: Tags) -> Generator[None, None, str]:
        """Read the value of ``name`` as ``read`` does, and return its text."""
        raw, is_closed = yield from _closed_value(source, tags)
        if (end := self._early_end(raw, name, tags, is_closed)) is not None:
            source.unread(raw[end:] + (tags.end if is_closed else ""))
            raw = raw[:end]
        elif not is_closed:
            raise Malformed
        return raw.removeprefix("\n").removesuffix("\n") if self._trimmed else raw

    def _early_end(self, raw: str, name: str, tags: Tags, is_closed: bool) -> int | None:
        """Return where a value ends whose own closing tag is missing; None if it is not missing."""
        properties = self.tool.parameters.get("properties")
        expected = properties if isinstance(properties, Mapping) else {}
        ends = [
            found.start()
            for found in tags.argument.finditer(raw)
            if found["name"].strip() in expected and found["name"].strip() not in (name, *self._members)
        ]
        patterns = (tags.call,) if is_closed else (tags.call, tags.call_end)
        ends += [found.start() for pattern in patterns if (found := pattern.search(raw))]
        return min(ends, default=None)

    def add(self, name: str, value: str) -> None:
        """Add an argument, whose value is JSON. The last of several with one name counts, as in Python's JSON."""
        self._members[name] = value

    def end(self) -> None:
        """End the call."""
        members = (f"{json.dumps(name, ensure_ascii=False)}: {value}" for name, value in self._members.items())
        self._calls.arguments(f"{{{', '.join(members)}}}")
        self._calls.end()


def _closed_value(source: Source, tags: Tags) -> Generator[None, None, tuple[str, bool]]:
    """Read a value and its closing tag; return its text, and whether the tag was there."""
    parts: list[str] = []
    length = 0
    first: int | None = None
    while True:
        piece, is_closed = yield from source.until_or_end(tags.end)
        parts.append(piece)
        length += len(piece)
        if not is_closed:
            break
        space = yield from source.spaces()
        if not (yield from source.more()) or (yield from source.sees(tags.followers)):
            return "".join(parts), True
        first = length if first is None else first
        parts.append(tags.end + space)
        length += len(tags.end) + len(space)
    text = "".join(parts)
    if first is None:
        return text, False
    source.unread(text[first + len(tags.end) :])
    return text[:first], True


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
