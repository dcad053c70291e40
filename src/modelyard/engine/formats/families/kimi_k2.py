"""Kimi K2 and K2 Thinking. The model gives each call an id, which its template expects in later messages.

    <|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Paris"}
    <|tool_call_end|><|tool_calls_section_end|>

(in one line). A section within reasoning ends it.

Source: https://huggingface.co/moonshotai/Kimi-K2-Instruct/blob/main/docs/tool_call_guidance.md
"""

from __future__ import annotations

import re

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import read_arguments
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.sections import Section
from modelyard.engine.formats.source import Source, Waiting

_SECTION, _SECTION_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
_CALL, _CALL_END, _ARGUMENTS = "<|tool_call_begin|>", "<|tool_call_end|>", "<|tool_call_argument_begin|>"
_CALLS = Section(_SECTION, _SECTION_END, _CALL)

_ID = re.compile(r"(?:functions\.)?(?P<name>.+):\d+")


def _read(source: Source, calls: Calls, marker: str) -> Waiting:
    if marker != _CALL and not (yield from _CALLS.next_call(source, marker, marker)):
        return
    while True:
        yield from source.space()
        word = yield from source.word()
        numbered = _ID.fullmatch(word)
        name = numbered["name"] if numbered else word.removeprefix("functions.")
        yield from source.space()
        yield from source.expect(_ARGUMENTS)
        yield from read_arguments(source, calls, name, word if numbered else None)
        yield from source.space()
        yield from source.take(_CALL_END)
        yield from source.space()
        calls.settle()
        if not (yield from _CALLS.next_call(source, marker, _CALL)):
            return


def _call(lark: Lark, tool: Tool) -> str:
    number = lark.rule("/[0-9]{1,3}/")
    name = lark.text(f"functions.{tool.name}:")
    head = f"{name} {number} {lark.text(_ARGUMENTS)}"
    return f"{head} {lark.arguments(tool)} {lark.text(_CALL_END)}"


KIMI_K2 = ToolFormat(
    name="kimi-k2",
    read=_read,
    openers=(_SECTION, _CALL, _SECTION_END),
    markers=frozenset((_SECTION, _SECTION_END, _CALL, _CALL_END, _ARGUMENTS)),
    shape=Shape(_SECTION + _CALL, _CALL, _SECTION_END),
    call=_call,
    closers=(_CALL_END, _SECTION_END),
    ends_reasoning=(_SECTION, _CALL),
)
