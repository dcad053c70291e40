"""MiniMax M3: arguments are nested elements, and a marker stands before each tag.

    ]<]minimax[>[<tool_call>
    ]<]minimax[>[<invoke name="get_weather">]<]minimax[>[<city>Paris]<]minimax[>[</city>]<]minimax[>[</invoke>
    ]<]minimax[>[</tool_call>

Elements named ``item`` form an array. The template leaves out members that are null.

Source: the chat template of MiniMaxAI/MiniMax-M3.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from typing import Any, Final

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import read_any
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import MAX_WORD_LENGTH, Malformed, Source, Waiting
from modelyard.engine.formats.tagged import TaggedArguments, members, value

_MARK = "]<]minimax[>["
_OPEN, _CLOSE = f"{_MARK}<tool_call>", f"{_MARK}</tool_call>"
_INVOKE, _INVOKE_END = f'{_MARK}<invoke name="', f"{_MARK}</invoke>"
_ITEM: Final = "item"
_NAME_END: Final = '">'
_MAX_DEPTH: Final = 32
# Schemas may refer to themselves; deeper values are written as JSON, which the reader accepts.
_MAX_WRITTEN_DEPTH: Final = 6


def _read(source: Source, calls: Calls, marker: str) -> Waiting:
    if marker == _OPEN:
        if (yield from source.space()) in ("{", "["):
            yield from read_any(source, calls)
            yield from source.space()
            yield from source.take(_CLOSE)
            return
        yield from source.expect(_INVOKE)
    while True:
        name = yield from source.until(_NAME_END, MAX_WORD_LENGTH)
        arguments = TaggedArguments(name, calls, trimmed=False)
        yield from source.space()
        while not ((yield from source.take(_INVOKE_END)) or (yield from source.ends())):
            key, text = yield from _element(source, arguments.tool, arguments.tool.parameters, 0)
            arguments.add(key, text)
            yield from source.space()
        arguments.end()
        yield from source.space()
        if not (yield from source.take(_INVOKE)):
            break
    yield from source.take(_CLOSE)


def _element(
    source: Source, tool: Tool, parent: Mapping[str, Any], depth: int
) -> Generator[None, None, tuple[str, str]]:
    """Read one element of a value of the schema ``parent``; return its name, and its value as JSON.

    Raises:
        Malformed: there is none, or it nests too deeply.
    """
    if depth > _MAX_DEPTH:
        raise Malformed
    yield from source.expect(f"{_MARK}<")
    name = yield from source.until(">", MAX_WORD_LENGTH)
    close = f"{_MARK}</{name}>"
    schema = _member_schema(tool, parent, name)
    parts: list[str] = []
    children: list[tuple[str, str]] = []
    has_words = False
    while True:
        known = len(parts)
        if not (yield from source.pour_up_to((_MARK,), parts.append)):
            raise Malformed
        if (yield from source.take(close)):
            break
        has_words = has_words or any(part.strip() for part in parts[known:])
        if has_words:
            # Text before a tag: the tag is part of it.
            source.at += len(_MARK)
            parts.append(_MARK)
            continue
        children.append((yield from _element(source, tool, schema, depth + 1)))
        parts.clear()
    return name, _joined(children) if children else _leaf(tool, schema, "".join(parts))


def _member_schema(tool: Tool, parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if name == _ITEM and "items" in parent:
        return tool.resolve(parent["items"])
    properties = parent.get("properties")
    return tool.resolve(properties.get(name)) if isinstance(properties, Mapping) else {}


def _leaf(tool: Tool, schema: Mapping[str, Any], text: str) -> str:
    types = tool.types(schema)
    if not text and types and "string" not in types:
        return "[]" if "array" in types else "{}" if "object" in types else "null"
    return tool.value(schema, text)


def _joined(children: list[tuple[str, str]]) -> str:
    if all(name == _ITEM for name, _ in children):
        return f"[{', '.join(text for _, text in children)}]"
    return f"{{{', '.join(f'{json.dumps(name, ensure_ascii=False)}: {text}' for name, text in children)}}}"


def _call(lark: Lark, tool: Tool) -> str:
    inner = _members(lark, tool, tool.parameters, 0)
    return f"{lark.text(f'{tool.name}{_NAME_END}')} {inner} {lark.text(_INVOKE_END)}"


def _members(lark: Lark, tool: Tool, schema: Mapping[str, Any], depth: int) -> str:
    parts: list[str] = []
    for name, each, is_required in members(Tool(tool.name, parameters=schema)):
        part = lark.rule(_tagged(lark, tool, name, tool.resolve(each), depth))
        parts.append(part if is_required else f"{part}?")
    return " ".join(parts)


def _tagged(lark: Lark, tool: Tool, name: str, schema: Mapping[str, Any], depth: int) -> str:
    head, close = lark.text(f"{_MARK}<{name}>"), f"{_MARK}</{name}>"
    types = tool.types(schema)
    if depth < _MAX_WRITTEN_DEPTH and types == {"object"} and schema.get("properties"):
        return f"{head} {_members(lark, tool, schema, depth + 1)} {lark.text(close)}"
    if depth < _MAX_WRITTEN_DEPTH and types == {"array"}:
        item = lark.rule(_tagged(lark, tool, _ITEM, tool.resolve(schema.get("items")), depth + 1))
        return f"{head} {item}* {lark.text(close)}"
    return f"{head} {value(lark, tool, schema, close)}"


MINIMAX_M3 = ToolFormat(
    name="minimax-m3",
    read=_read,
    openers=(_OPEN, _INVOKE),
    markers=frozenset((_MARK,)),
    shape=Shape(f"{_OPEN}\n{_INVOKE}", f"\n{_INVOKE}", f"\n{_CLOSE}"),
    call=_call,
    closers=(_INVOKE_END, _CLOSE),
)
