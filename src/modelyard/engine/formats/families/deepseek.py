"""DeepSeek V3, V3.1 and R1.

V3 and R1 put the arguments into a fence, V3.1 does not. One reader accepts both; their grammars differ. White space
between the markers is ignored.

    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather
    ```json
    {"city": "Paris"}
    ```<｜tool▁call▁end｜><｜tool▁calls▁end｜>

    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜>
    <｜tool▁calls▁end｜>

Source: the chat templates of deepseek-ai/DeepSeek-R1, DeepSeek-V3-0324 and DeepSeek-V3.1.
"""

from __future__ import annotations

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import read_arguments
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.sections import Section
from modelyard.engine.formats.source import Source, Waiting

_SECTION, _SECTION_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _CALL_END, _SEPARATOR = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
_FENCE = "```"
_CALLS = Section(_SECTION, _SECTION_END, _CALL)


def _read(source: Source, calls: Calls, marker: str) -> Waiting:
    if marker != _CALL and not (yield from _CALLS.next_call(source, marker, marker)):
        return
    while True:
        yield from source.space()
        name = yield from source.word()
        yield from source.space()
        yield from source.expect(_SEPARATOR)
        if (yield from source.space()) != "{":
            name = yield from source.word()
            yield from source.space()
            yield from source.expect(_FENCE)
            yield from source.take("json")
        yield from read_arguments(source, calls, name)
        for end in (_FENCE, _CALL_END):
            yield from source.space()
            yield from source.take(end)
        yield from source.space()
        calls.settle()
        if not (yield from _CALLS.next_call(source, marker, _CALL)):
            return


def _fenced(lark: Lark, tool: Tool) -> str:
    opened = lark.text(f"function{_SEPARATOR}{tool.name}\n{_FENCE}json\n")
    closed = lark.text(f"\n{_FENCE}{_CALL_END}")
    return f"{opened} {lark.arguments(tool)} {closed}"


def _plain(lark: Lark, tool: Tool) -> str:
    return f"{lark.text(tool.name + _SEPARATOR)} {lark.arguments(tool)} {lark.text(_CALL_END)}"


_MARKERS = frozenset((_SECTION, _SECTION_END, _CALL, _CALL_END, _SEPARATOR))

DEEPSEEK = ToolFormat(
    name="deepseek",
    read=_read,
    openers=(_SECTION, _CALL, _SECTION_END),
    markers=_MARKERS,
    shape=Shape(_SECTION + _CALL, f"\n{_CALL}", _SECTION_END),
    call=_fenced,
    closers=(_CALL_END, _SECTION_END),
)

DEEPSEEK_V31 = ToolFormat(
    name="deepseek-v3.1",
    read=_read,
    openers=(_SECTION, _CALL, _SECTION_END),
    markers=_MARKERS,
    shape=Shape(_SECTION + _CALL, _CALL, _SECTION_END),
    call=_plain,
    closers=(_CALL_END, _SECTION_END),
)
