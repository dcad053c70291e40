"""Apertus: each call is an object whose only member is the function.

    <|tools_prefix|>[{"get_weather": {"city": "Paris"}}, {"now": {}}]<|tools_suffix|>

Source: the chat template of swiss-ai/Apertus-8B-Instruct-2509.
"""

from __future__ import annotations

import json

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import read_arguments, read_close
from modelyard.engine.formats.json_text import read_string
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Malformed, Source, Waiting

_OPEN, _CLOSE = "<|tools_prefix|>", "<|tools_suffix|>"


def _read(source: Source, calls: Calls, _: str) -> Waiting:
    yield from source.space()
    yield from source.expect("[")
    while True:
        yield from source.space()
        yield from source.expect("{")
        yield from source.space()
        name = yield from read_string(source)
        if (yield from source.space()) != ":":
            raise Malformed
        source.at += 1
        yield from read_arguments(source, calls, name)
        yield from source.space()
        yield from source.take("}")
        calls.settle()
        if (yield from source.space()) != ",":
            break
        source.at += 1
    yield from read_close(source, source.closers)


def _call(lark: Lark, tool: Tool) -> str:
    head = lark.text(f"{{{json.dumps(tool.name, ensure_ascii=False)}: ")
    return f'{head} {lark.arguments(tool)} "}}"'


APERTUS = ToolFormat(
    name="apertus",
    read=_read,
    openers=(_OPEN,),
    markers=frozenset((_OPEN, _CLOSE)),
    shape=Shape(f"{_OPEN}[", ", ", f"]{_CLOSE}"),
    call=_call,
    closers=(_CLOSE,),
)
