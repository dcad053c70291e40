"""GLM 4.5 to 5, Spark 2.5, Ling 3, Laguna; and Hunyuan 3, whose tags have a suffix.

    <tool_call>get_weather
    <arg_key>city</arg_key>
    <arg_value>Paris</arg_value>
    </tool_call>

4.7 and later write it without line breaks. Hunyuan 3 adds ``:opensource`` to each tag, a ``<tool_sep>`` behind the
name, and ``<tool_calls>`` around all calls.

Sources: the chat templates of zai-org/GLM-4.5, zai-org/GLM-4.7 and tencent/Hy3.
"""

from __future__ import annotations

import re
from functools import partial

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import MAX_WORD_LENGTH, Malformed, Source, Waiting
from modelyard.engine.formats.tagged import TaggedArguments, Tags, members, value


class _Family:
    """The tags of one family, whose names end with ``suffix``. separator: the text behind a call's name."""

    def __init__(self, suffix: str, separator: str) -> None:
        def tag(name: str) -> str:
            return f"<{name}{suffix}>"

        self.separator = separator
        self.section, self.section_end = tag("tool_calls"), tag("/tool_calls")
        self.open, self.close = tag("tool_call"), tag("/tool_call")
        self.key, self.key_end = tag("arg_key"), tag("/arg_key")
        self.value, self.value_end = tag("arg_value"), tag("/arg_value")
        close = re.escape(self.close)
        self.tags = Tags(
            end=self.value_end,
            followers=(self.key, self.close, self.open),
            argument=re.compile(
                rf"\n?{re.escape(self.key)}(?P<name>[^<]*){re.escape(self.key_end)}\s*{re.escape(self.value)}"
            ),
            call=re.compile(rf"\n?{close}\s*{re.escape(self.open)}"),
            call_end=re.compile(rf"\n?{close}"),
        )

    @property
    def markers(self) -> frozenset[str]:
        """All tags, as far as they may be control tokens."""
        tags = {self.open, self.close, self.key, self.key_end, self.value, self.value_end}
        return frozenset(tags | ({self.separator, self.section, self.section_end} if self.separator else set()))


def _read(family: _Family, source: Source, calls: Calls, marker: str) -> Waiting:
    if marker in (family.section, family.section_end):
        # Only the calls within are told; text between them is content.
        yield from source.space()
        return
    yield from source.space()
    name = yield from source.word()
    yield from source.space()
    if not (family.separator and (yield from source.take(family.separator))) and (yield from source.space()) != "<":
        # A tag follows the name of a call; other text is not one.
        raise Malformed
    arguments = TaggedArguments(name, calls, trimmed=False)
    while True:
        yield from source.space()
        if (yield from source.take(family.key)):
            key = yield from source.until(family.key_end, MAX_WORD_LENGTH)
            yield from source.space()
            yield from source.expect(family.value)
            yield from arguments.read(source, key.strip(), family.tags)
        elif (yield from source.take(family.close)) or (yield from source.ends()):
            arguments.end()
            return
        elif (yield from source.sees((family.open,))):
            # The closing tag is missing between two calls.
            arguments.end()
            return
        else:
            raise Malformed


def _call(family: _Family, lark: Lark, tool: Tool) -> str:
    line = lark.rule(r"/\n?/")
    parts = [lark.text(tool.name + family.separator), line]
    for name, schema, is_required in members(tool):
        head = f"{lark.text(f'{family.key}{name}{family.key_end}')} {line} {lark.text(family.value)}"
        part = f"{head} {value(lark, tool, schema, family.value_end)} {line}"
        parts.append(part if is_required else f"({part})?")
    parts.append(lark.text(family.close))
    return " ".join(parts)


_GLM, _HUNYUAN = _Family("", ""), _Family(":opensource", "<tool_sep:opensource>")

GLM = ToolFormat(
    name="glm",
    read=partial(_read, _GLM),
    openers=(_GLM.open,),
    markers=_GLM.markers,
    shape=Shape(_GLM.open, f"\n{_GLM.open}"),
    call=partial(_call, _GLM),
    closers=(_GLM.close,),
)

HUNYUAN = ToolFormat(
    name="hunyuan",
    read=partial(_read, _HUNYUAN),
    openers=(_HUNYUAN.section, _HUNYUAN.open, _HUNYUAN.section_end),
    markers=_HUNYUAN.markers,
    shape=Shape(f"{_HUNYUAN.section}\n{_HUNYUAN.open}", f"\n{_HUNYUAN.open}", f"\n{_HUNYUAN.section_end}"),
    call=partial(_call, _HUNYUAN),
    closers=(_HUNYUAN.close, _HUNYUAN.section_end),
)
