"""The chat format of one model: how conversations become prompts, and how its answers are parsed and constrained."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.engine.chat.grammar import AnswerConstraints, grammar_of
from modelyard.engine.chat.marked_text import MarkedText
from modelyard.engine.chat.reasoning_switch import budget_of, closed_prompt, template_options
from modelyard.engine.chat.template import ChatTemplate
from modelyard.engine.formats.answer_grammar import AnswerGrammar, Named
from modelyard.engine.formats.format import ToolFormat
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
class RenderedChat:
    """The prompt of a conversation, and how the answer to it is parsed; reading None: it is plain text.

    Only what the template wrote of the text may become control tokens.
    """

    text: MarkedText
    reading: Reading | None


def tools_of(chat: Chat) -> tuple[Tool, ...]:
    """Return the functions that the model may call; none if the tool choice is "none"."""
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


def max_calls_of(chat: Chat) -> int | None:
    """Return the limit of calls in one answer; None: no limit. A choice of one function demands one call of it."""
    return 1 if isinstance(chat.tool_choice, NamedTool) or not chat.parallel_tool_calls else None


def parser_of(reading: Reading, chat: Chat) -> OutputParser:
    """Return a parser for the answer to ``chat``."""
    return parser(
        FORMATS[reading.tools],
        REASONING.get(reading.reasoning),
        tools_of(chat),
        prompt_ends_in_reasoning=reading.is_open,
        max_calls=max_calls_of(chat),
    )


class ChatFormat:
    """The chat template of one model, with the formats of its tool calls and its reasoning.

    Args:
        template: the model's chat template.
        token_id: finds control tokens by their text; called by the constructor only.
        tool_format: name of the format in the registry; None: detected from the template.
        reasoning_format: name of the format in ``REASONING``, "none" for none; None: detected from the template.
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
        self._renders_tools = "tools" in template.variables
        self._format: ToolFormat = format_of(template.source) if tool_format is None else FORMATS[tool_format]
        if tool_format is None and not self._renders_tools and self._format.own_reasoning is None:
            self._format = GENERIC
        self._reasoning: ReasoningFormat | None = (
            reasoning_of(template.source) if reasoning_format is None else REASONING.get(reasoning_format)
        )
        markers = control_tokens(self._format, self._reasoning)
        tokens = {marker: token for marker in markers if (token := token_id(marker)) is not None}
        self._token_id = tokens.get
        # Control tokens whose text the parser of an answer must see.
        self.spelt = frozenset(tokens.values())

    @property
    def can_reason(self) -> bool:
        """Whether reasoning is separated from the content of answers."""
        return self._reasoning is not None or self._format.own_reasoning is not None

    def write(self, chat: Chat) -> RenderedChat:
        """Render the prompt of a conversation.

        Raises:
            InvalidRequest: the template refuses it, or the arguments of a call in it are not a JSON object.
        """
        tools = tools_of(chat)
        messages: Sequence[Mapping[str, Any]] = for_template(chat.messages)
        if not self._renders_tools:
            messages = [_with_calls_as_text(message) for message in messages]
            if tools:
                messages = with_instructions(messages, instructions(tools))
        text = self._template.render(messages, chat.tools if tools else (), template_options(chat.options))
        text = closed_prompt(text, self._reasoning, chat.options, self._template.variables)
        if not tools and self._reasoning is None and self._format.own_reasoning is None:
            return RenderedChat(text, None)
        name = "" if self._reasoning is None else self._reasoning.name
        is_open = self._reasoning is not None and self._reasoning.opened_by(text)
        return RenderedChat(text, Reading(self._format.name, name, is_open))

    @property
    def reasoning(self) -> ReasoningFormat | None:
        """How the model marks its reasoning; None if it does not reason."""
        return self._format.own_reasoning or self._reasoning

    def closing(self, chat: Chat) -> str:
        """Return the text that ends the reasoning of an answer. The model must be one that reasons."""
        assert self.reasoning is not None
        # Behind it such a format would begin more reasoning; with tools, the model may also begin a call.
        opener = self._format.content_opener if self._format.own_reasoning is not None and not tools_of(chat) else ""
        return self.reasoning.closing + opener

    def reasoning_budget(self, request: Submit, chat: Chat) -> int | None:
        """Return how many tokens the reasoning of an answer may have; None: no limit."""
        return budget_of(request.reasoning_budget, chat.options, self._template.variables)

    def grammar(self, request: Submit, chat: Chat, reading: Reading | None) -> Callable[[], str | None] | None:
        """Return a function that makes the grammar of the answer; None if the answer is free.

        The function takes up to a second, and uses nothing of the model, so that any thread may call it.
        """
        tools = tools_of(chat)
        choice = chat.tool_choice
        constrains_calls = bool(tools) and (choice != "auto" or any(tool.strict for tool in tools))
        if not _is_constrained(request) and not constrains_calls:
            return None

        def make() -> str | None:
            return grammar_of(
                AnswerGrammar(
                    self._format,
                    self._token_id,
                    self._reasoning,
                    prompt_ends_in_reasoning=reading is not None and reading.is_open,
                ),
                AnswerConstraints(
                    tools,
                    Named(choice.name) if isinstance(choice, NamedTool) else choice,
                    parallel=max_calls_of(chat) is None,
                    response_format=request.response_format,
                    grammar=request.grammar,
                ),
            )

        return make


def text_grammar(request: Submit) -> Callable[[], str | None] | None:
    """Return a function that makes the grammar of a plain completion; None if the completion is free."""
    if not _is_constrained(request):
        return None

    def make() -> str | None:
        return grammar_of(
            AnswerGrammar(GENERIC, lambda _: None),
            AnswerConstraints(response_format=request.response_format, grammar=request.grammar),
        )

    return make


def _is_constrained(request: Submit) -> bool:
    return request.response_format is not None or request.grammar is not None


def _with_calls_as_text(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message for a template without tool calls: calls are text, in the form of ``instructions``."""
    calls = message.get("tool_calls") or []
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    if not calls:
        return rest
    texts = [
        json.dumps({"name": call["function"]["name"], "arguments": call["function"]["arguments"]}, ensure_ascii=False)
        for call in calls
    ]
    return {**rest, "content": "\n".join(filter(None, (rest["content"], *texts)))}
