"""Qwen 3 Coder, Qwen 3.5, Nemotron 3 Nano.

    <tool_call>
    <function=get_weather>
    <parameter=city>
    Paris
    </parameter>
    </function>
    </tool_call>

The model sometimes leaves out the outer tags, or writes calls as Hermes does. The reader accepts both.

Source: the chat template of Qwen/Qwen3-Coder-30B-A3B-Instruct.
"""

from __future__ import annotations

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import read_any, read_close
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Malformed, Source, Waiting
from modelyard.engine.formats.tagged import TaggedArguments, members, value

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"


def _read(source: Source, calls: Calls, marker: str) -> Waiting:
    if marker == _OPEN:
        if (yield from source.space()) in ("{", "["):
            yield from read_any(source, calls)
            yield from read_close(source, (_CLOSE,))
            return
        yield from source.expect(_FUNCTION)
    while True:
        yield from _function(source, calls)
        yield from source.space()
        if not (yield from source.take(_FUNCTION)):
            break
    yield from source.take(_CLOSE)


def _function(source: Source, calls: Calls) -> Waiting:
    name = yield from source.word()
    yield from source.expect(">")
    calls.begin(name)
    arguments = TaggedArguments(calls.tools.get(name, Tool(name, parameters={})), calls, trimmed=True)
    while True:
        yield from source.space()
        if (yield from source.take(_PARAMETER)):
            key = yield from source.until(">")
            yield from arguments.read(source, key, _PARAMETER_END)
        elif (yield from source.take(_FUNCTION_END)):
            arguments.end()
            return
        else:
            raise Malformed


def _call(lark: Lark, tool: Tool) -> str:
    parts = [lark.text(f"{_FUNCTION}{tool.name}>\n")]
    for name, schema, is_required in members(tool):
        part = f"{lark.text(f'{_PARAMETER}{name}>')} {_line(lark)} {value(lark, tool, schema, _LINE + _PARAMETER_END)}"
        parts.append(f"{part} {_line(lark)}" if is_required else f"({part} {_line(lark)})?")
    parts.append(lark.text(f"{_FUNCTION_END}\n{_CLOSE}"))
    return " ".join(parts)


_LINE = "\n"


def _line(lark: Lark) -> str:
    return lark.text(_LINE)


QWEN3_CODER = ToolFormat(
    name="qwen3-coder",
    read=_read,
    openers=(_OPEN, _FUNCTION),
    markers=frozenset((_OPEN, _CLOSE)),
    shape=Shape(f"{_OPEN}\n", f"\n{_OPEN}\n"),
    call=_call,
)
