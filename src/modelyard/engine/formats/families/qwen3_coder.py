"""Qwen 3 Coder, Qwen 3.5, Nemotron 3 Nano, Step 3.5; and Seed-OSS, which has its own outer tags.

    <tool_call>
    <function=get_weather>
    <parameter=city>
    Paris
    </parameter>
    </function>
    </tool_call>

    <seed:tool_call>
    <function=get_weather>
    <parameter=city>Paris</parameter>
    </function>
    </seed:tool_call>

The models sometimes leave out tags, or write calls as Hermes does. The reader accepts both.

Sources: the chat templates of Qwen/Qwen3-Coder-30B-A3B-Instruct and ByteDance-Seed/Seed-OSS-36B-Instruct.
"""

from __future__ import annotations

import re
from functools import partial

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import read_any, read_close
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import MAX_WORD_LENGTH, Malformed, Source, Waiting
from modelyard.engine.formats.tagged import TaggedArguments, Tags, members, value

_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"


def _tags(opener: str, close: str) -> Tags:
    end = rf"\n?{_FUNCTION_END}\s*(?:{re.escape(close)})?"
    return Tags(
        end=_PARAMETER_END,
        followers=(_PARAMETER, _FUNCTION_END, close, opener, _FUNCTION),
        argument=re.compile(rf"\n?{_PARAMETER}(?P<name>[^>\n]*)>"),
        call=re.compile(rf"{end}\s*(?:{re.escape(opener)}\s*)?{_FUNCTION}"),
        call_end=re.compile(rf"{end}|\n?{re.escape(close)}"),
    )


def _read(opener: str, tags: Tags, trimmed: bool, source: Source, calls: Calls, marker: str) -> Waiting:
    if marker == opener:
        if (yield from source.space()) in ("{", "["):
            yield from read_any(source, calls)
            yield from read_close(source, source.closers)
            return
        yield from source.expect(_FUNCTION)
    while True:
        yield from _function(tags, trimmed, source, calls)
        yield from source.space()
        if not (yield from source.take(_FUNCTION)):
            break
    yield from read_close(source, source.closers)


def _function(tags: Tags, trimmed: bool, source: Source, calls: Calls) -> Waiting:
    yield from source.space()
    name = yield from source.word()
    yield from source.space()
    yield from source.expect(">")
    arguments = TaggedArguments(name, calls, trimmed=trimmed)
    while True:
        yield from source.space()
        if (yield from source.take(_PARAMETER)):
            key = yield from source.until(">", MAX_WORD_LENGTH)
            yield from arguments.read(source, key.strip(), tags)
        elif (yield from source.take(_FUNCTION_END)) or (yield from source.ends()):
            arguments.end()
            return
        elif (yield from source.sees((_FUNCTION,))):
            # The closing tags are missing between two calls.
            arguments.end()
            return
        else:
            raise Malformed


def _call(around: str, close: str, lark: Lark, tool: Tool) -> str:
    parts = [lark.text(f"{_FUNCTION}{tool.name}>\n")]
    line = lark.text("\n")
    for name, schema, is_required in members(tool):
        head = lark.text(f"{_PARAMETER}{name}>{around}")
        part = f"{head} {value(lark, tool, schema, around + _PARAMETER_END)} {line}"
        parts.append(part if is_required else f"({part})?")
    parts.append(lark.text(f"{_FUNCTION_END}\n{close}"))
    return " ".join(parts)


def _format(name: str, opener: str, close: str, *, around: str) -> ToolFormat:
    """Return a format with the outer tags ``opener`` and ``close``, and ``around`` on either side of values."""
    return ToolFormat(
        name=name,
        read=partial(_read, opener, _tags(opener, close), bool(around)),
        openers=(opener, _FUNCTION),
        markers=frozenset((opener, close)),
        shape=Shape(f"{opener}\n", f"\n{opener}\n"),
        call=partial(_call, around, close),
        closers=(close,),
    )


QWEN3_CODER = _format("qwen3-coder", "<tool_call>", "</tool_call>", around="\n")
SEED = _format("seed", "<seed:tool_call>", "</seed:tool_call>", around="")
