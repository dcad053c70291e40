"""How one model talks: what its template is told of a conversation, and how its answers are to be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.engine.chat.grammar import grammar_of
from modelyard.engine.chat.template import ChatTemplate
from modelyard.engine.formats.format import Named, ToolFormat
from modelyard.engine.formats.generic import GENERIC, instructions
from modelyard.engine.formats.lark import TokenId
from modelyard.engine.formats.messages import for_template, with_instructions
from modelyard.engine.formats.reasoning import REASONING, ReasoningFormat, reasoning_of
from modelyard.engine.formats.registry import FORMATS, control_tokens, format_of, parser
from modelyard.engine.formats.schema import NO_PARAMETERS, Tool
from modelyard.protocol.deltas import OutputParser
from modelyard.protocol.prompts import Chat, NamedTool
from modelyard.protocol.requests import Submit
from modelyard.protocol.values import Reading


@dataclass(frozen=True, slots=True)
class Written:
    """A conversation as text, and how the answer to it is to be read; None: it is plain text."""

    text: str
    reading: Reading | None


def tools_of(chat: Chat) -> tuple[Tool, ...]:
    """The functions that the model may call; none where it is told not to."""
    if chat.tool_choice == "none":
        return ()
    functions = (tool["function"] for tool in chat.tools)
    return tuple(
        Tool(
            function["name"],
            function.get("description") or "",
            NO_PARAMETERS if function.get("parameters") is None else function["parameters"],
            bool(function.get("strict")),
        )
        for function in functions
    )


def parser_of(reading: Reading, chat: Chat) -> OutputParser:
    """Reads the answer to ``chat``."""
    return parser(
        FORMATS[reading.tools],
        REASONING.get(reading.reasoning),
        tools_of(chat),
        prompt_ends_in_reasoning=reading.is_open,
    )


class ChatFormat:
    """The chat template of one model, with the formats of its tool calls and its reasoning.

    Args:
        template: of the model.
        token_id: finds control tokens by their text. Asked here alone.
        tool_format: its name in the registry; None: told from the template.
        reasoning_format: its name in ``REASONING``, "none" for none; None: told from the template.
    """

    def __init__(
        self,
        template: ChatTemplate,
        token_id: TokenId,
        *,
        tool_format: str | None = None,
        reasoning_format: str | None = None,
    ) -> None:
        self._template = template
        self._knows_tools = "tools" in template.variables
        self._format: ToolFormat = format_of(template.source) if tool_format is None else FORMATS[tool_format]
        if tool_format is None and not self._knows_tools and self._format.own_reasoning is None:
            self._format = GENERIC
        self._reasoning: ReasoningFormat | None = (
            reasoning_of(template.source) if reasoning_format is None else REASONING.get(reasoning_format)
        )
        markers = control_tokens(self._format, self._reasoning)
        tokens = {marker: token for marker in markers if (token := token_id(marker)) is not None}
        self._token_id = tokens.get
        # Control tokens that are to be seen in an answer that is read.
        self.spelt = frozenset(tokens.values())

    @property
    def can_reason(self) -> bool:
        """Whether reasoning is told apart from its answers."""
        return self._reasoning is not None or self._format.own_reasoning is not None

    def write(self, chat: Chat) -> Written:
        """The prompt of a conversation.

        Raises:
            InvalidRequest: the template refuses it, or the arguments of a call in it are no JSON object.
        """
        tools = tools_of(chat)
        messages: Sequence[Mapping[str, Any]] = for_template(chat.messages)
        if not self._knows_tools:
            messages = [_told(message) for message in messages]
            if tools:
                messages = with_instructions(messages, instructions(tools))
        text = self._template.render(messages, chat.tools if tools else (), chat.options)
        if not tools and self._reasoning is None and self._format.own_reasoning is None:
            return Written(text, None)
        name = "" if self._reasoning is None else self._reasoning.name
        is_open = self._reasoning is not None and self._reasoning.opened_by(text)
        return Written(text, Reading(self._format.name, name, is_open))

    def grammar(self, request: Submit, chat: Chat, reading: Reading | None) -> Callable[[], str | None] | None:
        """Makes the grammar that the answer must follow; None: there is none.

        To make it takes up to a second, and touches nothing of the model: it may be done on any thread.
        """
        tools = tools_of(chat)
        if not _demands(request) and not (tools and (chat.tool_choice != "auto" or any(tool.strict for tool in tools))):
            return None
        choice = chat.tool_choice

        def make() -> str | None:
            return grammar_of(
                tool_format=self._format,
                token_id=self._token_id,
                tools=tools,
                choice=Named(choice.name) if isinstance(choice, NamedTool) else choice,
                parallel=chat.parallel_tool_calls,
                response_format=request.response_format,
                grammar=request.grammar,
                reasoning=self._reasoning,
                prompt_ends_in_reasoning=reading is not None and reading.is_open,
            )

        return make


def text_grammar(request: Submit) -> Callable[[], str | None] | None:
    """The same for a text that is continued."""
    if not _demands(request):
        return None

    def make() -> str | None:
        return grammar_of(
            tool_format=GENERIC,
            token_id=lambda _: None,
            response_format=request.response_format,
            grammar=request.grammar,
        )

    return make


def _demands(request: Submit) -> bool:
    return request.response_format is not None or request.grammar is not None


def _told(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message for a template that knows no calls: they are text, as the model was told to write them."""
    calls = message.get("tool_calls") or []
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    if not calls:
        return rest
    written = [
        json.dumps({"name": call["function"]["name"], "arguments": call["function"]["arguments"]}, ensure_ascii=False)
        for call in calls
    ]
    return {**rest, "content": "\n".join(filter(None, (rest["content"], *written)))}
