"""Muse Glimmer, whose answer is a series of messages with recipients. The prompt ends within the first header.

    <|start|>assistant to=self<|message|>…<|eom|><|start|>assistant to=get_weather<|message|><atem:function_calls>
    <atem:invoke name="get_weather">
    <atem:parameter name="city">Paris</atem:parameter>
    </atem:invoke>
    </atem:function_calls><|eom|>

A message to ``self`` is reasoning, one without calls is content.

Source: the chat template of Muse Glimmer, in llama.cpp, models/templates/muse-glimmer.jinja.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.continued import ContinuedParser
from modelyard.engine.formats.families.invoke import ATEM, expression, read_invocations
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.parser import CallParser
from modelyard.engine.formats.reasoning import ReasoningFormat
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Source, Waiting
from modelyard.protocol.deltas import OutputParser

_START, _MESSAGE, _END_OF_MESSAGE, _END_OF_TURN = "<|start|>", "<|message|>", "<|eom|>", "<|eot|>"
_ENDS = (_END_OF_MESSAGE, _END_OF_TURN)
_OPENING = f"{_START}assistant"
_MAX_HEADER_LENGTH = 600


def _read(source: Source, calls: Calls, marker: str) -> Waiting:
    if marker in ATEM.openers and calls.tools:
        yield from read_invocations((ATEM,), source, calls, marker)
    elif marker == _START:
        header = yield from source.until(_MESSAGE, _MAX_HEADER_LENGTH)
        if header.endswith(" to=self"):
            yield from source.pour(_ENDS, calls.reasoning)


def _parser(tools: Sequence[Tool], new_id: Callable[[], str], max_calls: int | None) -> OutputParser:
    openers = (_START, *_ENDS, *(ATEM.openers if tools else ()))
    calls = CallParser(
        _read, openers=openers, bare="", tools=tools, closers=ATEM.closers, new_id=new_id, max_calls=max_calls
    )
    return ContinuedParser(_OPENING, calls)


def _call(lark: Lark, tool: Tool) -> str:
    head = lark.text(f"{tool.name}{_MESSAGE}{ATEM.section}\n{ATEM.call}")
    return f"{head} {expression(ATEM, False, lark, tool)} {lark.text(chr(10) + ATEM.section_end)}"


MUSE = ToolFormat(
    name="muse",
    openers=(_START,),
    markers=frozenset((_START, _MESSAGE, *_ENDS)),
    shape=Shape(" to=", f"{_END_OF_MESSAGE}{_OPENING} to="),
    call=_call,
    own_reasoning=ReasoningFormat("muse", f" to=self{_MESSAGE}", f"{_END_OF_MESSAGE}{_OPENING}"),
    content_opener=_MESSAGE,
    has_frames=True,
    new_parser=_parser,
)
