"""Harmony, the format of gpt-oss: an answer is a series of messages, each with a header that names its channel.

    <|channel|>analysis<|message|>The user wants the weather.<|end|><|start|>assistant<|channel|>commentary
    to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>

(in one line). A message with a recipient is a call, whatever its channel. Of the others, those on ``analysis`` are
reasoning, and those on ``final`` and ``commentary`` content. Text before the first header is content.

Source: https://cookbook.openai.com/articles/openai-harmony
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence

from modelyard.engine.formats.calls import Calls
from modelyard.engine.formats.format import Shape, ToolFormat
from modelyard.engine.formats.json_calls import read_arguments
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.reasoning import ReasoningFormat
from modelyard.engine.formats.schema import Tool
from modelyard.engine.formats.source import Malformed, Source, Waiting
from modelyard.protocol.deltas import Delta

_START, _CHANNEL, _CONSTRAIN, _MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
_END, _CALL, _RETURN = "<|end|>", "<|call|>", "<|return|>"
_HEADERS = (_START, _CHANNEL)
_BODY_ENDS = (_END, _CALL, _RETURN, *_HEADERS)

_MAX_HEADER_LENGTH = 1000
_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.:/-]+)")
_WORD = re.compile(r"\w+")


class HarmonyParser:
    """Parses the reasoning, content and calls of one answer."""

    __slots__ = ("_calls", "_done", "_has_tools", "_source", "_steps")

    def __init__(self, tools: Sequence[Tool], new_id: Callable[[], str]) -> None:
        self._source = Source()
        self._calls = Calls(tools, self._source, new_id)
        self._has_tools = bool(tools)
        self._steps = self._read()
        self._done = False

    def push(self, text: str) -> list[Delta]:
        """Return the deltas that became certain with ``text``."""
        self._source.feed(text)
        return self._resume()

    def finish(self) -> list[Delta]:
        """Return the deltas of the text that was held back."""
        self._source.closed = True
        return self._resume()

    def _resume(self) -> list[Delta]:
        if not self._done:
            self._done = next(self._steps, True) is True
        return self._calls.deltas()

    def _read(self) -> Waiting:
        source = self._source
        while True:
            marker = yield from source.pour(_HEADERS, self._calls.content)
            if not marker:
                return
            while marker:
                source.mark(marker)
                try:
                    marker = yield from self._message()
                except Malformed:
                    self._calls.give_up(source.since_mark())
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
        if (yield from self._source.space()) in ("", "<"):
            # A call without arguments has an empty body.
            self._calls.whole(name, "{}")
            return
        yield from read_arguments(self._source, self._calls, name)
        yield from self._source.space()


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
