"""GLM 4.5, 4.6 and 4.7.

    <tool_call>get_weather
    <arg_key>city</arg_key>
    <arg_value>Paris</arg_value>
    </tool_call>

4.7 writes it without line breaks.

Source: the chat templates of zai-org/GLM-4.5 and zai-org/GLM-4.7.
"""

from __future__ import annotations

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Malformed, Source, Waiting
from modelyard.engine.formats.tagged import TaggedArguments, members, value

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_KEY, _KEY_END = "<arg_key>", "</arg_key>"
_VALUE, _VALUE_END = "<arg_value>", "</arg_value>"


def _read(source: Source, calls: Calls, _: str) -> Waiting:
    yield from source.space()
    name = yield from source.word()
    # A tag follows the name of a call; other text is not one.
    if (yield from source.space()) != "<":
        raise Malformed
    calls.begin(name)
    arguments = TaggedArguments(calls.tools.get(name, Tool(name, parameters={})), calls, trimmed=False)
    while True:
        yield from source.space()
        if (yield from source.take(_KEY)):
            key = yield from source.until(_KEY_END)
            yield from source.space()
            yield from source.expect(_VALUE)
            yield from arguments.read(source, key.strip(), _VALUE_END)
        elif (yield from source.take(_CLOSE)):
            arguments.end()
            return
        else:
            raise Malformed


def _call(lark: Lark, tool: Tool) -> str:
    line = lark.rule(r"/\n?/")
    parts = [lark.text(tool.name), line]
    for name, schema, is_required in members(tool):
        head = f"{lark.text(f'{_KEY}{name}{_KEY_END}')} {line} {lark.text(_VALUE)}"
        part = f"{head} {value(lark, tool, schema, _VALUE_END)} {line}"
        parts.append(part if is_required else f"({part})?")
    parts.append(lark.text(_CLOSE))
    return " ".join(parts)


GLM = ToolFormat(
    name="glm",
    read=_read,
    openers=(_OPEN,),
    markers=frozenset((_OPEN, _CLOSE, _KEY, _KEY_END, _VALUE, _VALUE_END)),
    shape=Shape(_OPEN, f"\n{_OPEN}"),
    call=_call,
)
