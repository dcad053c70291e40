"""Families whose calls are a list of JSON objects between two markers of their own.

    <tool_calls>[{"name": "get_weather", "arguments": {"city": "Paris"}}]</tool_calls>      Apriel 1.5, 1.6; MiniMax M1
    <TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Paris"}}]</TOOLCALL>          Nemotron Nano 2
    <|START_ACTION|>[{"tool_call_id": "0", "tool_name": "get_weather", "parameters": {}}]<|END_ACTION|>
                                                                                            Command R7B and A
    Action:                                                                                 Command R, R+
    ```json
    [{"tool_name": "get_weather", "parameters": {"city": "Paris"}}]
    ```
    <|function_call|>{"name": "get_weather", "arguments": {"city": "Paris"}}                GigaChat 3.1
    function call<|role_sep|>                                                               GigaChat 3
    {"name": "get_weather", "arguments": {"city": "Paris"}}

MiniMax M1 writes one object a line, without brackets.

Source: the chat templates of ServiceNow-AI/Apriel-1.6-15b-Thinker, MiniMaxAI/MiniMax-M1-80k,
nvidia/NVIDIA-Nemotron-Nano-9B-v2, CohereLabs/c4ai-command-r7b-12-2024, CohereLabs/c4ai-command-r-plus and
ai-sage/GigaChat3.1-10B-A1.8B.
"""

from __future__ import annotations

import json

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import call, read_any, read_close
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Source, Waiting

_NEXT_MESSAGE, _ROLE = "<|message_sep|>", "function call<|role_sep|>"


def _read(source: Source, calls: Calls, _: str) -> Waiting:
    yield from read_any(source, calls, separators=",")
    yield from read_close(source, source.closers)


def _read_message(source: Source, calls: Calls, marker: str) -> Waiting:
    if marker == _NEXT_MESSAGE:
        # The header of the message with the call comes next, which is a marker, too.
        yield from source.space()
        return
    yield from _read(source, calls, marker)


def _action_call(lark: Lark, tool: Tool) -> str:
    number = lark.rule("/[0-9]{1,2}/")
    head = lark.text('{"tool_call_id": "')
    name = lark.text(f'", "tool_name": {json.dumps(tool.name, ensure_ascii=False)}, "parameters": ')
    return f'{head} {number} {name} {lark.arguments(tool)} "}}"'


def _step_call(lark: Lark, tool: Tool) -> str:
    head = lark.text(f'{{"tool_name": {json.dumps(tool.name, ensure_ascii=False)}, "parameters": ')
    return f'{head} {lark.arguments(tool)} "}}"'


APRIEL = ToolFormat(
    name="apriel",
    read=_read,
    openers=("<tool_calls>",),
    markers=frozenset(("<tool_calls>", "</tool_calls>")),
    shape=Shape("<tool_calls>[", ", ", "]</tool_calls>"),
    call=call,
    closers=("</tool_calls>",),
)

MINIMAX_M1 = ToolFormat(
    name="minimax-m1",
    read=_read,
    openers=("<tool_calls>",),
    markers=frozenset(("<tool_calls>", "</tool_calls>")),
    shape=Shape("<tool_calls>\n", "\n", "\n</tool_calls>"),
    call=call,
    closers=("</tool_calls>",),
)

NEMOTRON = ToolFormat(
    name="nemotron",
    read=_read,
    openers=("<TOOLCALL>",),
    markers=frozenset(("<TOOLCALL>", "</TOOLCALL>")),
    shape=Shape("<TOOLCALL>[", ", ", "]</TOOLCALL>"),
    call=call,
    closers=("</TOOLCALL>",),
)

COMMAND = ToolFormat(
    name="command",
    read=_read,
    openers=("<|START_ACTION|>",),
    markers=frozenset(("<|START_ACTION|>", "<|END_ACTION|>")),
    shape=Shape("<|START_ACTION|>[\n    ", ",\n    ", "\n]<|END_ACTION|>"),
    call=_action_call,
    closers=("<|END_ACTION|>",),
)

_FENCE = "```"

COMMAND_R = ToolFormat(
    name="command-r",
    read=_read,
    openers=(f"Action:\n{_FENCE}json", f"Action: {_FENCE}json"),
    markers=frozenset(),
    shape=Shape(f"Action:\n{_FENCE}json\n[", ", ", f"]{_FENCE}"),
    call=_step_call,
    closers=(_FENCE,),
)

GIGACHAT = ToolFormat(
    name="gigachat",
    read=_read,
    openers=("<|function_call|>", _ROLE),
    markers=frozenset(("<|function_call|>", "<|role_sep|>")),
    shape=Shape("<|function_call|>", None),
    call=call,
)

GIGACHAT_3 = ToolFormat(
    name="gigachat-3",
    read=_read_message,
    openers=(_ROLE, "<|function_call|>", _NEXT_MESSAGE),
    markers=frozenset(("<|function_call|>", "<|role_sep|>", _NEXT_MESSAGE)),
    shape=Shape(f"{_ROLE}\n", None),
    call=call,
)
