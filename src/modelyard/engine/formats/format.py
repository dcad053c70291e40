"""A format of tool calls: how a model writes them, for parsers and for grammars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelyard.engine.formats.calls import new_call_id
from modelyard.engine.formats.lark import Lark
from modelyard.engine.formats.parser import CallParser, ReadCalls
from modelyard.engine.formats.reasoning import ReasoningFormat
from modelyard.engine.formats.schema import Tool
from modelyard.protocol.deltas import OutputParser

# Makes a parser of (the tools of the request, what makes the ids of calls, the limit of calls).
NewParser = Callable[[Sequence[Tool], Callable[[], str], int | None], OutputParser]


@dataclass(frozen=True, slots=True)
class Shape:
    """The text around calls: ``open call (between call)* close``.

    between: None if an answer holds one call at most.
    """

    open: str
    between: str | None
    close: str = ""


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How the models of one family write calls.

    Attributes:
        name: its name in the settings of a model.
        read: reads calls behind one of the openers; exactly one of ``read`` and ``new_parser`` is given.
        openers: texts that begin a call. ``shape.open`` begins with the first one, unless ``bare`` is given.
        markers: texts that are control tokens in most vocabularies of the family; openers that are plain text need not
            be among them. An engine must output these control tokens as their text, so that a parser sees them; it
            outputs no other control tokens.
        shape: the text around calls, for the grammar; ``between`` closes one call and opens the next.
        call: makes the Lark expression of what stands within the shape: one call without its opening and closing text.
        bare: characters that begin a call if they open an answer.
        closers: texts that end a call; JSON and tags that are still open there are closed.
        ambiguous: openers that content begins with, too, such as fences.
        has_frames: whether the markers surround content as well, so that they are read without tools, too.
        ends_reasoning: texts that end reasoning that was not closed, because models of the family do that. Reasoning
            that is never closed ends at a call in any case.
        new_id: makes ids for calls.
        own_reasoning: the reasoning format, if it belongs to this format.
        content_opener: text that the model writes before content.
        new_parser: makes a parser of the format's own, which also finds reasoning; None: ``read`` is used.
    """

    name: str
    openers: tuple[str, ...]
    markers: frozenset[str]
    shape: Shape
    call: Callable[[Lark, Tool], str]
    bare: str = ""
    closers: tuple[str, ...] = ()
    ambiguous: frozenset[str] = frozenset()
    has_frames: bool = False
    ends_reasoning: tuple[str, ...] = ()
    new_id: Callable[[], str] = new_call_id
    own_reasoning: ReasoningFormat | None = None
    content_opener: str = ""
    read: ReadCalls | None = None
    new_parser: NewParser | None = None

    def parser(
        self, tools: Sequence[Tool], new_id: Callable[[], str] | None = None, max_calls: int | None = None
    ) -> OutputParser:
        """Return a parser for one answer. Without tools no text is a call.

        max_calls: limit of calls; all that follows the last one is left out. None: no limit.
        """
        make_id = new_id or self.new_id
        if self.new_parser is not None:
            return self.new_parser(tools, make_id, max_calls)
        assert self.read is not None, self.name
        return CallParser(
            self.read,
            openers=self.openers if tools or self.has_frames else (),
            bare=self.bare if tools else "",
            tools=tools,
            closers=self.closers if tools or self.has_frames else (),
            ambiguous=self.ambiguous,
            new_id=make_id,
            max_calls=max_calls,
        )
