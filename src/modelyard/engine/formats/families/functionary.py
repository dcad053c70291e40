"""Functionary 3.2, which names a recipient before each part of its answer. The prompt ends with the first ``>>>``.

    >>>all
    I look.>>>get_weather
    {"city": "Paris"}

Source: the chat template of meetkai/functionary-medium-v3.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.continued import ContinuedParser
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import read_arguments
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.parser import CallParser
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import MAX_WORD_LENGTH, Malformed, Source, Waiting
from modelyard.protocol.deltas import OutputParser

_OPEN, _EVERYBODY = ">>>", "all"
_RECIPIENT = re.compile(r"[\w.-]+")


def _read(source: Source, calls: Calls, _: str) -> Waiting:
    name = yield from source.run(_RECIPIENT, MAX_WORD_LENGTH)
    yield from source.expect("\n")
    if name == _EVERYBODY:
        return
    if not calls.tools:
        raise Malformed
    yield from read_arguments(source, calls, name)


def _parser(tools: Sequence[Tool], new_id: Callable[[], str], max_calls: int | None) -> OutputParser:
    calls = CallParser(_read, openers=(_OPEN,), bare="", tools=tools, new_id=new_id, max_calls=max_calls)
    return ContinuedParser(_OPEN, calls)


def _call(lark: Lark, tool: Tool) -> str:
    head = lark.text(f"{tool.name}\n")
    return f"{head} {lark.arguments(tool)}"


FUNCTIONARY = ToolFormat(
    name="functionary",
    openers=(_OPEN,),
    markers=frozenset(),
    shape=Shape("", _OPEN),
    call=_call,
    content_opener=f"{_EVERYBODY}\n",
    has_frames=True,
    new_parser=_parser,
)
