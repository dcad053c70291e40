"""Phi 4 mini.

    <|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]<|/tool_call|>

or, for prompts that describe this form, which is part of its training: ``functools[{"name": …}]``.

Sources: the model card of microsoft/Phi-4-mini-instruct; llguidance, docs/toolcalls.md.
"""

from __future__ import annotations

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import call, read_any, read_close
from modelyard.engine.formats.source import Source, Waiting

_OPEN, _CLOSE, _FUNCTOOLS = "<|tool_call|>", "<|/tool_call|>", "functools["


def _read(source: Source, calls: Calls, marker: str) -> Waiting:
    if marker == _FUNCTOOLS:
        source.unread("[")
    yield from read_any(source, calls)
    yield from read_close(source, source.closers)


PHI = ToolFormat(
    name="phi",
    read=_read,
    openers=(_OPEN, _FUNCTOOLS),
    markers=frozenset((_OPEN, _CLOSE)),
    shape=Shape(f"{_OPEN}[", ", ", f"]{_CLOSE}"),
    call=call,
    closers=(_CLOSE,),
)
