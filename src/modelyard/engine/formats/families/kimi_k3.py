"""Kimi K3, whose whole answer consists of elements.

    <|open|>think<|sep|>…<|close|>think<|sep|><|open|>response<|sep|>…<|close|>response<|sep|>
    <|open|>tools<|sep|><|open|>call tool="get_weather" index="1"<|sep|>
    <|open|>argument key="city" type="string"<|sep|>Paris<|close|>argument<|sep|>
    <|close|>call<|sep|><|close|>tools<|sep|>

(in one line). The tags of all elements but ``call`` are dropped, and their text is content; ``formats.reasoning`` reads
``think``. Attributes escape ``&`` and quotes as in XML. Arguments may also be one element ``json``.

Source: the chat template of moonshotai/Kimi-K3.
"""

from __future__ import annotations

import json
import re
from html import escape, unescape
from typing import Final

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_text import read_value
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Malformed, Source, Waiting
from modelyard.engine.formats.tagged import TaggedArguments, Tags, members, value

_OPEN, _CLOSE, _SEP = "<|open|>", "<|close|>", "<|sep|>"
_CALL_END, _ARGUMENT_END, _JSON_END = f"{_CLOSE}call{_SEP}", f"{_CLOSE}argument{_SEP}", f"{_CLOSE}json{_SEP}"
_ARGUMENT = f"{_OPEN}argument "
_TOOLS_END = f"{_CLOSE}tools{_SEP}"

_MAX_TAG_LENGTH: Final = 1000
_ATTRIBUTE = re.compile(r'([\w-]+)="([^"]*)"')
_TAGS = Tags(
    end=_ARGUMENT_END,
    followers=(_ARGUMENT, _CALL_END),
    argument=re.compile(rf'{re.escape(_ARGUMENT)}key="(?P<name>[^"]*)"[^<]*{re.escape(_SEP)}'),
    call=re.compile(rf"{re.escape(_CALL_END)}\s*{re.escape(_OPEN)}call "),
    call_end=re.compile(re.escape(_CALL_END)),
)


def _read(source: Source, calls: Calls, marker: str) -> Waiting:
    tag = yield from source.until(_SEP, _MAX_TAG_LENGTH)
    if marker == _CLOSE or not tag.startswith("call "):
        return
    if not calls.tools:
        raise Malformed
    arguments = TaggedArguments(_attributes(tag).get("tool", ""), calls, trimmed=False)
    while True:
        yield from source.space()
        if (yield from source.take(_ARGUMENT)):
            opened = _attributes((yield from source.until(_SEP, _MAX_TAG_LENGTH)))
            if (name := opened.get("key")) is None:
                raise Malformed
            text = yield from arguments.text(source, name, _TAGS)
            arguments.add(name, _value(arguments.tool, name, opened.get("type", ""), text))
        elif (yield from source.take(f"{_OPEN}json ")):
            yield from source.until(_SEP, _MAX_TAG_LENGTH)
            yield from source.space()
            for name, each in _object((yield from read_value(source))).items():
                arguments.add(name, each)
            yield from source.space()
            yield from source.take(_JSON_END)
        elif (yield from source.take(_CALL_END)) or (yield from source.ends()):
            arguments.end()
            return
        else:
            raise Malformed


def _attributes(tag: str) -> dict[str, str]:
    return {name: unescape(text) for name, text in _ATTRIBUTE.findall(tag)}


def _object(text: str) -> dict[str, str]:
    """Return the members of a JSON object, as JSON each.

    Raises:
        Malformed: it is not an object.
    """
    members = json.loads(text)
    if not isinstance(members, dict):
        raise Malformed
    return {name: json.dumps(each, ensure_ascii=False) for name, each in members.items()}


def _value(tool: Tool, name: str, kind: str, text: str) -> str:
    if kind == "string":
        return json.dumps(text, ensure_ascii=False)
    return Tool(tool.name).value({}, text) if kind else tool.argument(name, text)


def _call(lark: Lark, tool: Tool) -> str:
    number = lark.rule("/[0-9]{1,3}/")
    parts = [lark.text(f'{_OPEN}call tool="{escape(tool.name)}" index="'), number, lark.text(f'"{_SEP}')]
    for name, schema, is_required in members(tool):
        part = _argument(lark, tool, tool.resolve(schema), escape(name))
        parts.append(part if is_required else f"({part})?")
    parts.append(lark.text(_CALL_END))
    return " ".join(parts)


def _argument(lark: Lark, tool: Tool, schema: object, key: str) -> str:
    resolved = tool.resolve(schema)
    kinds = sorted(tool.types(resolved)) or ["array", "boolean", "null", "number", "object", "string"]
    parts: list[str] = []
    for kind in kinds:
        written = "number" if kind == "integer" else kind
        head = lark.text(f'{_ARGUMENT}key="{key}" type="{written}"{_SEP}')
        of_kind = {**resolved, "type": kind} if "enum" not in resolved and "const" not in resolved else resolved
        parts.append(f"{head} {value(lark, tool, of_kind, _ARGUMENT_END)}")
    return f"({' | '.join(parts)})"


KIMI_K3 = ToolFormat(
    name="kimi-k3",
    read=_read,
    openers=(_OPEN, _CLOSE),
    markers=frozenset((_OPEN, _CLOSE, _SEP)),
    shape=Shape(f"{_OPEN}tools{_SEP}", "", _TOOLS_END),
    call=_call,
    closers=(_TOOLS_END,),
    has_frames=True,
    ends_reasoning=(_OPEN,),
)
