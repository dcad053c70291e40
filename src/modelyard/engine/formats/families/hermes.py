"""Hermes 2 and 3, Qwen 2.5, Qwen 3 and QwQ, SmolLM 3, Granite 4.

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Paris"}}
    </tool_call>

Source: the chat templates of NousResearch/Hermes-3-Llama-3.1-8B and Qwen/Qwen3-8B.
"""

from __future__ import annotations

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import call, read_any, read_close
from modelyard.engine.formats.source import Source, Waiting

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def _read(source: Source, calls: Calls, _: str) -> Waiting:
    yield from read_any(source, calls)
    yield from read_close(source, source.closers)


HERMES = ToolFormat(
    name="hermes",
    read=_read,
    openers=(OPEN,),
    markers=frozenset((OPEN, CLOSE)),
    shape=Shape(f"{OPEN}\n", f"\n{CLOSE}\n{OPEN}\n", f"\n{CLOSE}"),
    call=call,
    closers=(CLOSE,),
)
