"""Solar Open, whose answer is a series of messages, as those of gpt-oss, with one kind of message for calls.

    <|think|>…<|end|><|begin|>assistant<|content|>…<|end|><|begin|>assistant<|tool_calls|>
    <|tool_call:begin|>call-1<|tool_call:name|>get_weather<|tool_call:args|>{"city": "Paris"}<|tool_call:end|><|calls|>

(in one line). The headers of messages are dropped; ``formats.reasoning`` reads the message ``think``.

Source: the chat template of upstage/Solar-Open-100B.
"""

from __future__ import annotations

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import read_arguments
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Malformed, Source, Waiting

_BEGIN, _CONTENT, _END, _TOOL_CALLS, _CALLS = "<|begin|>", "<|content|>", "<|end|>", "<|tool_calls|>", "<|calls|>"
_CALL, _NAME, _ARGUMENTS = "<|tool_call:begin|>", "<|tool_call:name|>", "<|tool_call:args|>"
_CALL_END = "<|tool_call:end|>"


def _read(source: Source, calls: Calls, marker: str) -> Waiting:
    if marker == _BEGIN:
        yield from source.take("assistant")
        return
    if marker != _CALL:
        return
    if not calls.tools:
        raise Malformed
    call_id = yield from source.word()
    yield from source.expect(_NAME)
    name = yield from source.word()
    yield from source.expect(_ARGUMENTS)
    yield from read_arguments(source, calls, name, call_id)
    yield from source.space()
    yield from source.take(_CALL_END)


def _call(lark: Lark, tool: Tool) -> str:
    call_id = lark.rule("/[a-zA-Z0-9-]{1,32}/")
    head = f"{lark.text(_CALL)} {call_id} {lark.text(_NAME + tool.name + _ARGUMENTS)}"
    return f"{head} {lark.arguments(tool)} {lark.text(_CALL_END)}"


SOLAR = ToolFormat(
    name="solar",
    read=_read,
    openers=(_TOOL_CALLS, _CALL, _BEGIN, _CONTENT, _END, _CALLS),
    markers=frozenset((_BEGIN, _CONTENT, _END, _TOOL_CALLS, _CALLS, _CALL, _NAME, _ARGUMENTS, _CALL_END)),
    shape=Shape(_TOOL_CALLS, "", _CALLS),
    call=_call,
    closers=(_CALL_END, _CALLS),
    content_opener=_CONTENT,
    has_frames=True,
    ends_reasoning=(_BEGIN, _TOOL_CALLS),
)
