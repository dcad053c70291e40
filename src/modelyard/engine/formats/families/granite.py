"""Granite 3. Granite 4 writes calls as Hermes does.

    <|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]

Granite 3.1 writes ``<tool_call>`` in place of the marker.

Source: the chat templates of ibm-granite/granite-3.0-8b-instruct and granite-3.3-8b-instruct.
"""

from __future__ import annotations

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import call, read_any, read_close
from modelyard.engine.formats.source import Source, Waiting

_OPEN, _OPEN_TEXT, _CLOSE = "<|tool_call|>", "<tool_call>", "</tool_call>"


def _read(source: Source, calls: Calls, _: str) -> Waiting:
    yield from read_any(source, calls)
    yield from read_close(source, source.closers)


GRANITE = ToolFormat(
    name="granite",
    read=_read,
    openers=(_OPEN, _OPEN_TEXT),
    markers=frozenset((_OPEN, _OPEN_TEXT, _CLOSE)),
    shape=Shape(f"{_OPEN}[", ", ", "]"),
    call=call,
    closers=(_CLOSE,),
)
