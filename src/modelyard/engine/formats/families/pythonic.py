"""Calls that are Python: Llama 4, Llama 3.2, LFM 2 and OLMo 3.

    [get_weather(city="Paris", days=3), now()]                          Llama 4, where it opens the answer
    <|python_start|>[get_weather(city="Paris")]<|python_end|>           Llama 4
    <|tool_call_start|>[get_weather(city="Paris")]<|tool_call_end|>     LFM 2
    <function_calls>                                                    OLMo 3
    get_weather(city="Paris")
    now()
    </function_calls>

The arguments are Python literals, which are converted to JSON. Arguments without a name get the names of the tool's
schema, in its order. Models of these families write JSON calls as well, which are read in the same places.

Sources: https://github.com/meta-llama/llama-models/blob/main/models/llama4/prompt_format.md; the chat templates of
LiquidAI/LFM2.5-8B-A1B and allenai/Olmo-3-7B-Instruct.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from typing import Any, Final

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import read_any, read_close, read_items
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.python_text import python_atom, python_value, read_comma
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import MAX_WORD_LENGTH, Malformed, Source, Waiting
from modelyard.engine.formats.tagged import members

# Names of arguments and bare values.
_ATOM = re.compile(r"[-+.\w]+")
_NAME = re.compile(r"[\w.-]+")
_MAX_ATOM_LENGTH: Final = 1000


def read_python(source: Source, calls: Calls, *, known: bool = False) -> Waiting:
    """Read ``[call, call]``, or calls behind each other, in Python or in JSON.

    known: as in ``read_object``.

    Raises:
        Malformed: it is neither.
    """
    if (yield from source.space()) == "{":
        yield from read_any(source, calls, known=known, separators=";,")
        return
    is_list = yield from source.take("[")
    if is_list and (yield from source.space()) == "{":
        yield from read_items(source, calls, known=known)
        return
    while True:
        yield from source.space()
        yield from _call(source, calls, known=known)
        character = yield from source.space()
        if character and character in ",;":
            source.at += 1
            character = yield from source.space()
        if not (character.isidentifier() and (is_list or (yield from _sees_call(source)))):
            break
    if is_list and (yield from source.take("]")):
        calls.settle()


def _sees_call(source: Source) -> Generator[None, None, bool]:
    """Whether a name and a parenthesis come next, without reading them."""
    while True:
        name = _NAME.match(source.text, source.at)
        end = name.end() if name else source.at
        if end < len(source.text):
            return name is not None and source.text[end] == "("
        if source.closed or end - source.at > MAX_WORD_LENGTH:
            return False
        yield


def _call(source: Source, calls: Calls, *, known: bool) -> Waiting:
    name = yield from source.run(_NAME, MAX_WORD_LENGTH)
    if (known and name not in calls.tools) or not (yield from source.take("(")):
        raise Malformed
    calls.begin(name)
    positions = iter([each for each, _, _ in members(calls.tools.get(name, Tool(name)))])
    arguments: dict[str, str] = {}
    while (character := (yield from source.space())) != ")":
        key = None
        if character.isidentifier():
            word = yield from source.run(_ATOM, _MAX_ATOM_LENGTH)
            if (yield from source.space()) in ("=", ":"):
                source.at += 1
                key = word
                text = yield from python_value(source)
            else:
                text = python_atom(word)
        else:
            text = yield from python_value(source)
        key = next(positions, None) if key is None else key
        if key is None:
            raise Malformed
        arguments[key] = text
        if not (yield from read_comma(source, ")")):
            break
    if not (yield from source.take(")")) and not (yield from source.ends()):
        raise Malformed
    listed = ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {text}" for key, text in arguments.items())
    calls.arguments(f"{{{listed}}}")
    calls.end()


def _expression(lark: Lark, tool: Tool) -> str:
    listed = [
        (lark.rule(_argument(lark, tool, name, schema)), is_required) for name, schema, is_required in members(tool)
    ]
    required = [rule for rule, is_required in listed if is_required]
    optional = [rule for rule, is_required in listed if not is_required]
    if required:
        more = [f'(", " {rule})?' for rule in optional]
        arguments = " ".join([' ", " '.join(required), *more])
    elif optional:
        any_one = lark.rule(" | ".join(optional))
        arguments = f'({any_one} (", " {any_one})*)?'
    else:
        arguments = ""
    return f'{lark.text(tool.name + "(")} {arguments} ")"'


def _argument(lark: Lark, tool: Tool, name: str, schema: Mapping[str, Any]) -> str:
    schema = tool.resolve(schema)
    head = lark.text(f"{name}=")
    if tool.types(schema) == {"boolean"} and not {"enum", "const"} & schema.keys():
        return f'{head} ("True" | "False")'
    definitions = {key: tool.parameters[key] for key in ("$defs", "definitions") if key in tool.parameters}
    return f"{head} {lark.json({**definitions, **schema}, strict=tool.strict)}"


_PYTHON_START, _PYTHON_END = "<|python_start|>", "<|python_end|>"
_LFM_START, _LFM_END = "<|tool_call_start|>", "<|tool_call_end|>"
_OLMO_START, _OLMO_END = "<function_calls>", "</function_calls>"


def _read_bare(source: Source, calls: Calls, marker: str) -> Waiting:
    yield from read_python(source, calls, known=not marker)
    yield from read_close(source, source.closers)


def _read(source: Source, calls: Calls, _: str) -> Waiting:
    yield from read_python(source, calls)
    yield from read_close(source, source.closers)


LLAMA4 = ToolFormat(
    name="llama4",
    read=_read_bare,
    openers=(_PYTHON_START,),
    markers=frozenset((_PYTHON_START, _PYTHON_END)),
    shape=Shape("[", ", ", "]"),
    call=_expression,
    bare="[{",
    closers=(_PYTHON_END,),
)

LFM2 = ToolFormat(
    name="lfm2",
    read=_read,
    openers=(_LFM_START,),
    markers=frozenset((_LFM_START, _LFM_END)),
    shape=Shape(f"{_LFM_START}[", ", ", f"]{_LFM_END}"),
    call=_expression,
    closers=(_LFM_END,),
)

OLMO3 = ToolFormat(
    name="olmo3",
    read=_read,
    openers=(_OLMO_START,),
    markers=frozenset((_OLMO_START, _OLMO_END)),
    shape=Shape(f"{_OLMO_START}\n", "\n", f"\n{_OLMO_END}"),
    call=_expression,
    closers=(_OLMO_END,),
)
