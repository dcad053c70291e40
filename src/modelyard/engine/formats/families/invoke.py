"""Calls that are ``invoke`` tags with named parameters: DSML of DeepSeek 3.2 and 4, MiniMax M2, MiniCPM 5.

    <｜DSML｜function_calls>                                                   ``tool_calls`` in DeepSeek 4
    <｜DSML｜invoke name="get_weather">
    <｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>
    <｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>
    </｜DSML｜invoke>
    </｜DSML｜function_calls>

    <minimax:tool_call>
    <invoke name="get_weather">
    <parameter name="city">Paris</parameter>
    </invoke>
    </minimax:tool_call>

    <function name="get_weather"><param name="city"><![CDATA[Paris]]></param></function>

DeepSeek 4.1 writes ``<｜DSML｜ calls>``, with a space behind each ``｜DSML｜``. The reader of DSML accepts all three.

Sources: encoding/encoding_dsv32.py of deepseek-ai/DeepSeek-V3.2 and its successors; the chat templates of
MiniMaxAI/MiniMax-M2 and openbmb/MiniCPM5-1B.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Malformed, Source, Waiting
from modelyard.engine.formats.tagged import TaggedArguments, Tags, members, value

# Limit of a tag with its attributes.
_MAX_TAG_LENGTH: Final = 600

_NAME = re.compile(r'(?P<name>[^"]+)"(?:\s+string="(?P<is_text>true|false)")?\s*/?')
_CDATA, _CDATA_END = "<![CDATA[", "]]>"


class Style:
    """The tags of one dialect.

    Args:
        prefix: the text between ``<`` or ``</`` and the name of a tag.
        call, argument: the names of the tags of calls and arguments.
        section: the name of the tag around all calls, with its prefix; "" if there is none.
    """

    def __init__(self, section: str, prefix: str, call: str, argument: str) -> None:
        self.section, self.section_end = (f"<{section}>", f"</{section}>") if section else ("", "")
        self.call, self.call_end = f'<{prefix}{call} name="', f"</{prefix}{call}>"
        self.argument, self.argument_end = f'<{prefix}{argument} name="', f"</{prefix}{argument}>"
        call_end = re.escape(self.call_end)
        section_end = rf"|\n?{re.escape(self.section_end)}" if section else ""
        self.tags = Tags(
            end=self.argument_end,
            followers=(self.argument, self.call_end, self.call, *filter(None, (self.section_end,))),
            argument=re.compile(rf'\n?{re.escape(self.argument)}(?P<name>[^"\n]*)"[^>\n]*>'),
            call=re.compile(rf"\n?{call_end}\s*{re.escape(self.call)}"),
            call_end=re.compile(rf"\n?{call_end}{section_end}"),
        )

    @property
    def openers(self) -> tuple[str, ...]:
        """The texts that begin a call."""
        return tuple(filter(None, (self.section, self.call)))

    @property
    def closers(self) -> tuple[str, ...]:
        """The texts that end a call."""
        return tuple(filter(None, (self.call_end, self.section_end)))


def read_invocations(styles: Sequence[Style], source: Source, calls: Calls, marker: str) -> Waiting:
    """Read the calls behind ``marker``, which is an opener of one of ``styles``.

    Raises:
        Malformed: there are none.
    """
    style = next(each for each in styles if marker in each.openers)
    if marker == style.section:
        yield from source.space()
        yield from source.expect(style.call)
    while True:
        yield from _call(style, source, calls)
        yield from source.space()
        if not (yield from source.take(style.call)):
            break
    if style.section:
        yield from source.take(style.section_end)


def _call(style: Style, source: Source, calls: Calls) -> Waiting:
    header = _NAME.fullmatch((yield from source.until(">", _MAX_TAG_LENGTH)))
    if header is None:
        raise Malformed
    arguments = TaggedArguments(header["name"], calls, trimmed=False)
    while True:
        yield from source.space()
        if (yield from source.take(style.argument)):
            opened = _NAME.fullmatch((yield from source.until(">", _MAX_TAG_LENGTH)))
            if opened is None:
                raise Malformed
            text = yield from arguments.text(source, opened["name"], style.tags)
            arguments.add(opened["name"], _value(arguments.tool, opened, text))
        elif (yield from source.take(style.call_end)) or (yield from source.ends()):
            arguments.end()
            return
        elif (yield from source.sees((style.call,))):
            # The closing tag is missing between two calls.
            arguments.end()
            return
        else:
            raise Malformed


def _value(tool: Tool, opened: re.Match[str], text: str) -> str:
    """Return the JSON of an argument, whose tag may tell whether it is a string."""
    if opened["is_text"] == "true":
        return json.dumps(text, ensure_ascii=False)
    if opened["is_text"] == "false":
        return Tool(tool.name, parameters={}).value({}, text)
    words = text.strip()
    if words.startswith(_CDATA) and words.endswith(_CDATA_END):
        return tool.argument(opened["name"], words.removeprefix(_CDATA).removesuffix(_CDATA_END))
    return tool.argument(opened["name"], text)


def expression(style: Style, typed: bool, lark: Lark, tool: Tool) -> str:
    """Return the expression of one call from its name on. typed: whether arguments tell whether they are strings."""
    parts = [lark.text(f'{tool.name}">\n')]
    line = lark.text("\n")
    for name, schema, is_required in members(tool):
        part = f"{_argument(style, typed, lark, tool, name, schema)} {line}"
        parts.append(part if is_required else f"({part})?")
    parts.append(lark.text(style.call_end))
    return " ".join(parts)


def _argument(style: Style, typed: bool, lark: Lark, tool: Tool, name: str, schema: Mapping[str, Any]) -> str:
    head = f'{style.argument}{name}"'
    if not typed:
        return f"{lark.text(f'{head}>')} {value(lark, tool, schema, style.argument_end)}"
    types = tool.types(tool.resolve(schema))
    as_text, as_json = lark.text(f'{head} string="true">'), lark.text(f'{head} string="false">')
    text = f"{as_text} {value(lark, tool, schema, style.argument_end)}"
    if types == {"string"}:
        return text
    kinds = {"type": sorted(types - {"string"})} if types else {}
    other = lark.json({**_definitions(tool), **tool.resolve(schema), **kinds}, strict=tool.strict)
    bare = f"{as_json} {other} {lark.text(style.argument_end)}"
    return bare if types and "string" not in types else f"({text} | {bare})"


def _definitions(tool: Tool) -> dict[str, Any]:
    return {key: tool.parameters[key] for key in ("$defs", "definitions") if key in tool.parameters}


def _format(name: str, styles: Sequence[Style], *, typed: bool = False, markers: frozenset[str]) -> ToolFormat:
    """Return a format that writes calls in the first of ``styles``, and reads all of them.

    typed: whether arguments tell whether they are strings.
    """
    style = styles[0]
    before, after = (f"{style.section}\n", f"\n{style.section_end}") if style.section else ("", "")
    return ToolFormat(
        name=name,
        read=partial(read_invocations, styles),
        openers=tuple(opener for each in styles for opener in each.openers),
        markers=markers,
        shape=Shape(before + style.call, f"\n{style.call}", after),
        call=partial(expression, style, typed),
        closers=tuple({closer: None for each in styles for closer in each.closers}),
    )


_DSML = "｜DSML｜"
_V32 = Style(f"{_DSML}function_calls", _DSML, "invoke", "parameter")
_V4 = Style(f"{_DSML}tool_calls", _DSML, "invoke", "parameter")
_V41 = Style(f"{_DSML} calls", f"{_DSML} ", "invoke", "parameter")

DEEPSEEK_V32 = _format("deepseek-v3.2", (_V32, _V4, _V41), typed=True, markers=frozenset((_DSML,)))
DEEPSEEK_V4 = _format("deepseek-v4", (_V4, _V32, _V41), typed=True, markers=frozenset((_DSML,)))
DEEPSEEK_V41 = _format("deepseek-v4.1", (_V41, _V4, _V32), typed=True, markers=frozenset((_DSML,)))

ATEM = Style("atem:function_calls", "atem:", "invoke", "parameter")

_M2 = Style("minimax:tool_call", "", "invoke", "parameter")
MINIMAX_M2 = _format("minimax-m2", (_M2,), markers=frozenset((_M2.section, _M2.section_end)))

_MINICPM = Style("", "", "function", "param")
MINICPM = _format(
    "minicpm", (_MINICPM,), markers=frozenset(("<function", "</function>", "<param", "</param>", _CDATA, _CDATA_END))
)
