"""JSON calls, for models without a format of their own, whose templates do not render tools; see ``instructions``.

    {"name": "get_weather", "arguments": {"city": "Paris"}}

A call is read if it opens the answer, or is in a fence, or in the tags of Hermes, which small models imitate; as one
object or as a list. JSON is a call only if it names a tool of the request. All other JSON is content.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import bare_call, read_any, read_close
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Source, Waiting

_FENCE = "```"
_FENCES = ("```json", "```tool_call")
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


def _read(source: Source, calls: Calls, marker: str) -> Waiting:
    yield from read_any(source, calls, known=True, separators=";,")
    if marker:
        yield from read_close(source, (_FENCE if marker in _FENCES else _CLOSE,))


def instructions(tools: Sequence[Tool]) -> str:
    """Return instructions for a model: its tools, and how it calls them."""
    described = "\n".join(
        json.dumps(
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters}, ensure_ascii=False
        )
        for tool in tools
    )
    return (
        f"You can call these functions:\n{described}\n"
        "To call one, answer with nothing but a JSON object with its name and its arguments, like this: "
        '{"name": "function_name", "arguments": {"argument": "value"}}'
    )


GENERIC = ToolFormat(
    name="generic",
    read=_read,
    openers=(_OPEN, *_FENCES),
    markers=frozenset((_OPEN, _CLOSE)),
    shape=Shape("", "\n"),
    call=bare_call,
    bare="{[",
    closers=(_CLOSE,),
    ambiguous=frozenset(_FENCES),
)
