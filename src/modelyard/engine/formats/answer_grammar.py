"""The grammar of one answer in a model's formats: reasoning, which is free, then calls or constrained content."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modelyard.engine.formats.format import ToolFormat
from modelyard.engine.formats.lark import Lark, TokenId
from modelyard.engine.formats.reasoning import ReasoningFormat
from modelyard.engine.formats.schema import Tool

# White space between reasoning and the text behind it.
_SPACE = r"/[ \n]{0,4}/"


@dataclass(frozen=True, slots=True)
class Named:
    """A tool choice that requires a call of the function ``name``."""

    name: str


# "auto": the model may call, and is otherwise free; "required": it must call one of the tools.
ToolChoice = Literal["auto", "required"] | Named


class AnswerGrammar:
    """Makes one grammar, in Lark for llguidance, which begins with the first token of an answer.

    Args:
        tool_format: how the model writes calls.
        token_id: finds control tokens by their text.
        reasoning: how the model reasons before it answers; None if it does not.
        prompt_ends_in_reasoning: whether the prompt has opened the reasoning.

    Attributes:
        lark: collects the rules of the grammar.
    """

    __slots__ = ("_format", "_prompt_ends_in_reasoning", "_reasoning", "lark")

    def __init__(
        self,
        tool_format: ToolFormat,
        token_id: TokenId,
        reasoning: ReasoningFormat | None = None,
        *,
        prompt_ends_in_reasoning: bool = False,
    ) -> None:
        self._format = tool_format
        self._reasoning = reasoning
        self._prompt_ends_in_reasoning = prompt_ends_in_reasoning
        self.lark = Lark(token_id, tool_format.markers | (reasoning.markers if reasoning else frozenset()))

    def of_content(self, expression: str) -> str:
        """Return the grammar of an answer whose content is ``expression``, made with ``lark``."""
        opener = self.lark.text(self._format.content_opener)
        return self.lark.grammar(self._after_reasoning(f"{opener} {expression}".lstrip()))

    def of_calls(
        self,
        tools: Sequence[Tool],
        choice: ToolChoice,
        *,
        parallel: bool,
        content: Mapping[str, Any] | None = None,
        strict_content: bool = False,
    ) -> str:
        """Return the grammar of an answer with calls.

        Args:
            tools: the tools of the request; ``choice`` may name one of them.
            choice: "auto" leaves all text free up to the opener of a call.
            parallel: whether several calls may follow each other.
            content: JSON schema of content; with the choice "auto" the model writes either calls or such content.
            strict_content: whether all of that schema must be enforced.
        """
        lark, shape = self.lark, self._format.shape
        if isinstance(choice, Named):
            tools = [tool for tool in tools if tool.name == choice.name]
        call = lark.rule(" | ".join(self._format.call(lark, tool) for tool in tools))
        block = call
        if parallel and shape.between is not None:
            block = f"{call} ({lark.text(shape.between)} {call})*"
        block = f"{block} {lark.text(shape.close)}".rstrip()
        start = f"{lark.text(shape.open)} {block}".lstrip()
        if choice == "auto" and content is not None:
            expression = lark.json(content, strict=strict_content)
            start = f"{start} | {lark.text(self._format.content_opener)} {expression}"
        elif choice == "auto":
            start = self._free(block)
        return lark.grammar(self._after_reasoning(start))

    def _after_reasoning(self, start: str) -> str:
        """Return ``start`` behind free reasoning, which is optional unless the prompt has opened it."""
        lark, own, reasoning = self.lark, self._format.own_reasoning, self._reasoning
        if own is not None:
            return f"({lark.text(own.open)} {lark.text_until(own.close)})? {lark.rule(start)}"
        if reasoning is None:
            return start
        closed = f"{lark.text_until(reasoning.close)} {lark.rule(_SPACE)}"
        thought = closed if self._prompt_ends_in_reasoning else f"({lark.text(reasoning.open)} {closed})?"
        return f"{thought} {lark.rule(start)}"

    def _free(self, block: str) -> str:
        """Return free text in which the opener of a call must be followed by the rest of ``block``."""
        lark, shape, bare = self.lark, self._format.shape, self._format.bare
        if bare:
            text = lark.rule(rf"/[^{re.escape(bare)}\s](.|\n)*/")
            return f"({text} | {lark.text(shape.open)} {block})?"
        opener = self._format.openers[0]
        rest = lark.text(shape.open.removeprefix(opener))
        if lark.is_token(opener):
            lead = f"{lark.any_text()} {lark.text(opener)}"
        elif lark.has_token(opener):
            lead = lark.text_until(opener)
        else:
            lead = lark.rule(rf"/(.|\n)*/ {lark.text(opener)}", "[lazy]")
        return f"({lead} {rest} {block})* {lark.any_text()}"
