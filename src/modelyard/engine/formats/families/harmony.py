"""Harmony, the format of gpt-oss: an answer is a series of messages, each with a header that names its channel.

    <|channel|>analysis<|message|>The user wants the weather.<|end|><|start|>assistant<|channel|>commentary
    to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>

(in one line). A message with a recipient is a call, whatever its channel. Of the others, those on ``analysis`` are
reasoning, and those on ``final`` and ``commentary`` content. Text before the first header is content. The recipient may
also stand before the channel. The body of a call of ``python`` is code, which becomes the tool's first argument.

Source: https://cookbook.openai.com/articles/openai-harmony
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Sequence

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import read_arguments
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.reasoning import ReasoningFormat
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Malformed, Source, Waiting
from modelyard.engine.formats.tagged import members
from modelyard.protocol.deltas import Delta

_START, _CHANNEL, _CONSTRAIN, _MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
_END, _CALL, _RETURN = "<|end|>", "<|call|>", "<|return|>"
_HEADERS = (_START, _CHANNEL)
_BODY_ENDS = (_END, _CALL, _RETURN, *_HEADERS)

_RECIPIENTS = (" to=", "to=")
# Built-in tools, whose calls are code.
_CODE_RECIPIENTS = frozenset(("python", "browser", "container"))

_MAX_HEADER_LENGTH = 1000
_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.:/-]+)")
_WORD = re.compile(r"\w+")


class HarmonyParser:
    """Parses the reasoning, content and calls of one answer."""

    __slots__ = ("_calls", "_done", "_has_tools", "_source", "_steps")

    def __init__(self, tools: Sequence[Tool], new_id: Callable[[], str], max_calls: int | None = None) -> None:
        self._source = Source(_BODY_ENDS)
        self._calls = Calls(tools, self._source, new_id, max_calls)
        self._has_tools = bool(tools)
        self._steps = self._read()
        self._done = False

    def push(self, text: str) -> list[Delta]:
        """Return the deltas that became certain with ``text``."""
        self._source.feed(text)
        return self._resume()

    def finish(self, *, is_cut: bool = False) -> list[Delta]:
        """Return the deltas of the text that was held back."""
        self._source.closed, self._source.is_cut = True, is_cut
        return self._resume()

    def _resume(self) -> list[Delta]:
        if not self._done:
            self._done = next(self._steps, True) is True
        return self._calls.deltas()

    def _read(self) -> Waiting:
        source = self._source
        # The prompt ends within a header, so that the recipient may come first.
        marker = _START if (yield from source.sees(_RECIPIENTS)) else ""
        written = ""
        while True:
            if not marker:
                written = marker = yield from source.pour(_HEADERS, self._calls.content)
            if not marker:
                return
            while marker:
                source.mark(written)
                try:
                    written = marker = yield from self._message()
                except Malformed:
                    text = source.since_mark()
                    # A cut call is left out, with its header; it is none whose text ended before.
                    if not (source.is_cut and self._calls.has_begun):
                        self._calls.content(text)
                    self._calls.drop()
                    marker = ""

    def _message(self) -> Generator[None, None, str]:
        """Read the message behind the marker that began it.

        Return the marker of the next message if it ended this one; "" if this message has an end of its own.
        """
        source = self._source
        try:
            header = yield from source.until(_MESSAGE, _MAX_HEADER_LENGTH)
        except Malformed:
            if source.closed and source.at == len(source.text):
                # The answer was cut off within a header, which is neither content nor reasoning.
                source.since_mark()
                return ""
            raise
        channel = _WORD.match(header.rpartition(_CHANNEL)[2].strip())
        recipient = _RECIPIENT.search(header)
        sink = self._calls.reasoning if channel and channel[0] == "analysis" else self._calls.content
        if recipient and self._has_tools and recipient[1] != "assistant":
            yield from self._call(recipient[1])
            sink = self._calls.content
        end = yield from source.pour(_BODY_ENDS, sink)
        source.since_mark()
        return end if end in _HEADERS else ""

    def _call(self, name: str) -> Waiting:
        source, calls = self._source, self._calls
        calls.begin(name)
        first = yield from source.space()
        if first in ("", "<") and not source.is_cut:
            # A call without arguments has an empty body.
            calls.whole(name, "{}")
        elif name in _CODE_RECIPIENTS and first != "{":
            yield from self._code(name)
        else:
            yield from read_arguments(source, calls, name)
            yield from source.space()

    def _code(self, name: str) -> Waiting:
        """Read a call whose body is code, as those of the built-in tool ``python``, and make it an argument.

        Raises:
            Malformed: the answer was cut off within it.
        """
        source, calls = self._source, self._calls
        parts: list[str] = []
        end = yield from source.pour(_BODY_ENDS, parts.append)
        if not end and source.is_cut:
            raise Malformed
        if end:
            source.unread(end)
        listed = [each for each, _, _ in members(calls.tools.get(name, Tool(name)))]
        calls.arguments(json.dumps({listed[0] if listed else "code": "".join(parts)}, ensure_ascii=False))
        calls.end()


def _expression(lark: Lark, tool: Tool) -> str:
    head = lark.text(f"{tool.name} {_CONSTRAIN}json{_MESSAGE}")
    return f"{head} {lark.arguments(tool)} {lark.text(_CALL)}"


HARMONY = ToolFormat(
    name="harmony",
    openers=(_CHANNEL,),
    markers=frozenset((_START, _CHANNEL, _CONSTRAIN, _MESSAGE, _END, _CALL, _RETURN)),
    shape=Shape(f"{_CHANNEL}commentary to=functions.", None),
    call=_expression,
    own_reasoning=ReasoningFormat("harmony", f"{_CHANNEL}analysis{_MESSAGE}", f"{_END}{_START}assistant"),
    content_opener=f"{_CHANNEL}final{_MESSAGE}",
    new_parser=HarmonyParser,
)
