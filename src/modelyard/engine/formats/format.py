"""A format of tool calls: how a model writes them, read and enforced."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modelyard.engine.formats.calls import new_call_id
from modelyard.engine.formats.lark import Lark, TokenId
from modelyard.engine.formats.parser import CallParser, ReadCalls
from modelyard.engine.formats.reasoning import ReasoningFormat
from modelyard.engine.formats.schema import Tool
from modelyard.protocol.deltas import OutputParser

# Between reasoning and what comes after it.
_SPACE = r"/[ \n]{0,4}/"


@dataclass(frozen=True, slots=True)
class Named:
    """The model must call this function."""

    name: str


# "auto": the model may call, and says what it likes otherwise; "required": it must call one of them.
ToolChoice = Literal["auto", "required"] | Named


@dataclass(frozen=True, slots=True)
class Shape:
    """What stands around calls: ``open call (between call)* close``.

    between None: an answer holds one call at most.
    """

    open: str
    between: str | None
    close: str = ""


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How the models of one family write calls.

    Attributes:
        name: for the setting of a model.
        read: reads calls behind one of the openers.
        openers: markers that begin a call; the first is the one that a grammar writes.
        markers: all markers, control tokens in most vocabularies of the family. An engine must write these control
            tokens out as their text, for a parser to see them; all other control tokens are no text.
        shape: of a block of calls, for the grammar.
        call: the expression of one call within the shape.
        bare: characters that begin a call where they open an answer.
        ends_reasoning: whether a call ends reasoning that was not closed, because models of the family do that.
        new_id: makes ids for calls.
        own_reasoning: the reasoning that belongs to the format, where all of it does.
        content_opener: what the model writes before content.
        new_parser: a parser of the format's own, which finds reasoning as well; else ``read`` is used.
    """

    name: str
    openers: tuple[str, ...]
    markers: frozenset[str]
    shape: Shape
    call: Callable[[Lark, Tool], str]
    bare: str = ""
    ends_reasoning: bool = False
    new_id: Callable[[], str] = new_call_id
    own_reasoning: ReasoningFormat | None = None
    content_opener: str = ""
    read: ReadCalls | None = None
    new_parser: Callable[[Sequence[Tool], Callable[[], str]], OutputParser] | None = None

    def parser(self, tools: Sequence[Tool], new_id: Callable[[], str] | None = None) -> OutputParser:
        """A parser for one answer. Without tools no text is a call."""
        make_id = new_id or self.new_id
        if self.new_parser is not None:
            return self.new_parser(tools, make_id)
        assert self.read is not None, self.name
        return CallParser(
            self.read,
            openers=self.openers if tools else (),
            bare=self.bare if tools else "",
            tools=tools,
            new_id=make_id,
        )

    def grammar(
        self,
        tools: Sequence[Tool],
        choice: ToolChoice,
        *,
        parallel: bool,
        token_id: TokenId,
        reasoning: ReasoningFormat | None = None,
        prompt_ends_in_reasoning: bool = False,
        content: Mapping[str, Any] | None = None,
        strict_content: bool = False,
    ) -> str:
        """What the model must write, from the first token of its answer, as a Lark grammar for llguidance.

        Args:
            tools: those of the request; ``choice`` may name one of them.
            choice: "auto" leaves all text free up to the opener of a call.
            parallel: whether several calls may follow each other.
            token_id: finds control tokens.
            reasoning: how the model reasons before it answers; it may do so freely.
            prompt_ends_in_reasoning: the reasoning was opened by the prompt.
            content: JSON schema of what is said in place of a call; "auto" leaves the choice between the two.
            strict_content: whether that schema must be followed in all.
        """
        markers = self.markers | (reasoning.markers if reasoning else frozenset())
        lark = Lark(token_id, markers)
        if isinstance(choice, Named):
            tools = [tool for tool in tools if tool.name == choice.name]
        call = lark.rule(" | ".join(self.call(lark, tool) for tool in tools))
        block = call
        if parallel and self.shape.between is not None:
            block = f"{call} ({lark.text(self.shape.between)} {call})*"
        block = f"{block} {lark.text(self.shape.close)}".rstrip()
        start = f"{lark.text(self.shape.open)} {block}".lstrip()
        if choice == "auto" and content is not None:
            said = lark.json(content, strict=strict_content)
            start = f"{start} | {lark.text(self.content_opener)} {said}"
        elif choice == "auto":
            start = self._free(lark, block)
        return lark.grammar(self.after_reasoning(lark, start, reasoning, prompt_ends_in_reasoning))

    def after_reasoning(self, lark: Lark, start: str, reasoning: ReasoningFormat | None, inside: bool) -> str:
        """``start`` after reasoning, which is free: it may come first, or was opened by the prompt."""
        if self.own_reasoning is not None:
            own = self.own_reasoning
            return f"({lark.text(own.open)} {lark.text_until(own.close)})? {lark.rule(start)}"
        if reasoning is None:
            return start
        closed = f"{lark.text_until(reasoning.close)} {lark.rule(_SPACE)}"
        thought = closed if inside else f"({lark.text(reasoning.open)} {closed})?"
        return f"{thought} {lark.rule(start)}"

    def _free(self, lark: Lark, block: str) -> str:
        if self.bare:
            said = lark.rule(rf"/[^{re.escape(self.bare)}\s](.|\n)*/")
            return f"({said} | {lark.text(self.shape.open)} {block})?"
        opener = self.openers[0]
        rest = lark.text(self.shape.open.removeprefix(opener))
        if lark.is_token(opener):
            lead = f"{lark.any_text()} {lark.text(opener)}"
        else:
            lead = lark.rule(rf"/(.|\n)*/ {lark.text(opener)}", "[lazy]")
        return f"({lead} {rest} {block})* {lark.any_text()}"
