"""Mistral, Mixtral, Ministral, Devstral and Magistral.

    [TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}]           tokenizers up to v7
    [TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]…                     v11 and later
    [TOOL_CALLS]get_weather[CALL_ID]Ab3dE6gH9[ARGS]{"city": "Paris"}                Mistral Small 3.2

One reader accepts all three; their grammars differ.

Sources: mistral-common, tokens/tokenizers/instruct.py; the chat templates of mistralai/Mistral-7B-Instruct-v0.3,
mistralai/Mistral-Small-3.2-24B-Instruct-2506 and mistralai/Ministral-3-8B-Instruct-2512.
"""

from __future__ import annotations

import secrets
from string import ascii_letters, digits

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import call, read_any, read_arguments
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Source, Waiting

_OPEN, _ID, _ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"


def _read(source: Source, calls: Calls, _: str) -> Waiting:
    if (yield from source.space()) in ("[", "{"):
        yield from read_any(source, calls)
        return
    name = yield from source.word()
    call_id = None
    if (yield from source.take(_ID)):
        call_id = yield from source.word()
    yield from source.take(_ARGUMENTS)
    yield from read_arguments(source, calls, name, call_id)


def _new_id() -> str:
    # The family's templates refuse ids of any other form.
    return "".join(secrets.choice(ascii_letters + digits) for _ in range(9))


def _call_by_name(lark: Lark, tool: Tool) -> str:
    return f"{lark.text(tool.name + _ARGUMENTS)} {lark.arguments(tool)}"


def _call_with_id(lark: Lark, tool: Tool) -> str:
    call_id = lark.rule("/[a-zA-Z0-9]{9}/")
    return f"{lark.text(tool.name + _ID)} {call_id} {lark.text(_ARGUMENTS)} {lark.arguments(tool)}"


MISTRAL = ToolFormat(
    name="mistral",
    read=_read,
    openers=(_OPEN,),
    markers=frozenset((_OPEN,)),
    shape=Shape(f"{_OPEN}[", ", ", "]"),
    call=call,
    new_id=_new_id,
)

MISTRAL_ARGS = ToolFormat(
    name="mistral-args",
    read=_read,
    openers=(_OPEN,),
    markers=frozenset((_OPEN, _ARGUMENTS)),
    shape=Shape(_OPEN, _OPEN),
    call=_call_by_name,
    new_id=_new_id,
)

MISTRAL_CALL_ID = ToolFormat(
    name="mistral-call-id",
    read=_read,
    openers=(_OPEN,),
    markers=frozenset((_OPEN, _ID, _ARGUMENTS)),
    shape=Shape(_OPEN, _OPEN),
    call=_call_with_id,
    new_id=_new_id,
)
