"""Llama 3.1, 3.2 and 3.3. A call opens the answer, without a marker or behind ``<|python_tag|>``.

    {"name": "get_weather", "parameters": {"city": "Paris"}}; {"name": …}

JSON without a marker is a call only if it names a tool of the request. Llama 3.2 also writes Python; see
``pythonic``. Calls of the custom kind,
``<function=get_weather>{"city": "Paris"}</function>``, are read as well. Code behind ``<|python_tag|>`` is content.

Source: https://github.com/meta-llama/llama-models/blob/main/models/llama3_1/prompt_format.md
"""

from __future__ import annotations

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.families.pythonic import read_python
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import bare_call, read_arguments
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Source, Waiting

_PYTHON, _FUNCTION = "<|python_tag|>", "<function="


def _read(source: Source, calls: Calls, marker: str) -> Waiting:
    if marker != _FUNCTION:
        yield from read_python(source, calls, known=not marker)
        return
    name = yield from source.word()
    yield from source.expect(">")
    yield from read_arguments(source, calls, name)
    yield from source.space()
    yield from source.take("</function>")


def _call(lark: Lark, tool: Tool) -> str:
    return bare_call(lark, tool, "parameters")


LLAMA3 = ToolFormat(
    name="llama3",
    read=_read,
    openers=(_PYTHON, _FUNCTION),
    markers=frozenset((_PYTHON,)),
    shape=Shape("", "; "),
    call=_call,
    bare="{[",
)
