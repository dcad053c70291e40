"""The chat format of one model: how conversations become prompts, and how its answers are parsed and constrained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from modelyard.engine.chat.capabilities import capabilities_of
from modelyard.engine.chat.continuation import Beginning, beginning_of
from modelyard.engine.chat.grammar import AnswerConstraints, grammar_of
from modelyard.engine.chat.marked_text import MarkedText
from modelyard.engine.chat.reasoning_switch import budget_of, closed_prompt, template_options
from modelyard.engine.chat.repair import fit, flatten, listed, to_messages
from modelyard.engine.chat.template import ChatTemplate
from modelyard.engine.formats.answer_grammar import AnswerGrammar, Named
from modelyard.engine.formats.families.generic import GENERIC, instructions
from modelyard.engine.formats.format import ToolFormat
from modelyard.engine.formats.lark import TokenId
from modelyard.engine.formats.messages import Turn, turns_of, with_instructions
from modelyard.engine.formats.reasoning import REASONING, ReasoningFormat, reasoning_of
from modelyard.engine.formats.registry import FORMATS, control_tokens, format_of, parser
from modelyard.engine.formats.schema import NO_PARAMETERS, Tool
from modelyard.errors import ConversationTooLong, InvalidRequest
from modelyard.protocol.deltas import OutputParser
from modelyard.protocol.prompts import Chat, NamedTool
from modelyard.protocol.requests import Submit
from modelyard.protocol.values import OutputFormat


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """The prompt of a conversation.

    Attributes:
        text: the prompt. Only what the template wrote of it may become control tokens.
        output_format: how the answer to it is parsed; None: it is plain text.
        repairs: as in ``Accepted``.
    """

    text: MarkedText
    output_format: OutputFormat | None
    repairs: tuple[str, ...] = ()


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


def ends_with_call(chat: Chat) -> bool:
    """Whether an answer ends with its first call, because it may have no other."""
    return max_calls_of(chat) == 1 and bool(tools_of(chat))


def parser_of(output_format: OutputFormat, chat: Chat) -> OutputParser:
    """Return a parser for the answer to ``chat``."""
    answer = parser(
        FORMATS[output_format.tools],
        REASONING.get(output_format.reasoning),
        tools_of(chat),
        prompt_ends_in_reasoning=output_format.is_open and not output_format.begun,
        max_calls=max_calls_of(chat),
    )
    if output_format.begun:
        answer.push(output_format.begun)
    return answer


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
        self._takes = capabilities_of(template)
        markers = control_tokens(self._format, self._reasoning)
        tokens = {marker: token for marker in markers if (token := token_id(marker)) is not None}
        self._token_id = tokens.get
        # Control tokens whose text the parser of an answer must see.
        self.visible_specials = frozenset(tokens.values())

    @property
    def can_reason(self) -> bool:
        """Whether reasoning is separated from the content of answers."""
        return self.reasoning is not None

    def write(self, chat: Chat) -> RenderedChat:
        """Render the prompt of a conversation, after the repairs that the template needs.

        Raises:
            InvalidRequest: the template refuses it, also in turns of users and assistants alone.
        """
        tools = tools_of(chat)
        notes: list[str] = []
        turns = turns_of(chat.messages, notes)
        if tools and not self._renders_tools:
            turns = with_instructions(turns, instructions(tools))
        beginning = beginning_of(turns, self.reasoning) if chat.continues else None
        if beginning is not None:
            text, begun = self._continued(chat, beginning, notes)
        else:
            text, begun = self._render(chat, turns, notes, opens_turn=chat.opens_turn), ""
            if chat.opens_turn:
                text = closed_prompt(text, self._reasoning, chat.options, self._template.variables)
        return RenderedChat(text, self._output_format(chat, text, beginning, begun), listed(notes))

    def _output_format(
        self, chat: Chat, text: MarkedText, beginning: Beginning | None, begun: str
    ) -> OutputFormat | None:
        if not self._is_parsed(chat):
            return None
        if beginning is not None:
            is_open = beginning.is_reasoning
        else:
            is_open = self._reasoning is not None and self._reasoning.opened_by(text)
        return OutputFormat(self._format.name, "" if self._reasoning is None else self._reasoning.name, is_open, begun)

    def _continued(self, chat: Chat, beginning: Beginning, notes: list[str]) -> tuple[MarkedText, str]:
        """Return the prompt that ends with the beginning of an answer, and what parsers must know of that."""
        try:
            closed = self._render(chat, beginning.turns, notes, opens_turn=False)
            prompt = beginning.cut(closed, self.reasoning)
        except ConversationTooLong:
            raise
        except InvalidRequest:
            # Some templates refuse to end with the assistant; if it was for another reason, they refuse again below.
            prompt = None
        if prompt is not None and not self._is_parsed(chat):
            return prompt, ""
        opened = self._render(chat, beginning.before, [], opens_turn=True)
        if prompt is None:
            prompt = beginning.behind(opened, self.reasoning)
        return prompt, beginning.begun(prompt, opened, self.reasoning)

    def _is_parsed(self, chat: Chat) -> bool:
        """Whether the answer may hold more than content."""
        return bool(tools_of(chat)) or self.reasoning is not None

    def _render(self, chat: Chat, turns: Sequence[Turn], notes: list[str], *, opens_turn: bool) -> MarkedText:
        """Render turns in the form that the template takes; if it refuses that, without turns of tools."""
        tools = chat.tools if tools_of(chat) and self._renders_tools else ()
        takes = self._takes
        style = takes.calls if self._renders_tools else None
        if style is not None and not tools:
            # The first turn is only taken for the user's where tools are described in it.
            style = replace(style, first=True) if style.without_tools else None
        repaired: list[str] = []
        fitted = to_messages(fit(turns, takes, style, self._format, repaired), takes, style)
        without_tools = () if takes.tools_are_list else None

        options = template_options(chat.options)

        def rendered(messages: Sequence[Mapping[str, Any]]) -> MarkedText:
            return self._template.render(messages, tools, options, opens_turn=opens_turn, without_tools=without_tools)

        try:
            text = rendered(fitted)
        except ConversationTooLong:
            raise
        except InvalidRequest as refused:
            repaired = []
            flat = to_messages(flatten(turns, takes, self._format, repaired), takes, None)
            if flat == fitted:
                raise
            try:
                text = rendered(flat)
            except InvalidRequest:
                raise refused from None
        if _lacks_system_text(fitted, text):
            # Mistral's templates write it with the last turn, and only if that is the user's.
            moved: list[str] = []
            as_user = to_messages(fit(turns, replace(takes, system=False), style, self._format, moved), takes, style)
            with suppress(InvalidRequest):
                text, repaired = rendered(as_user), moved
        notes += repaired
        return text

    @property
    def reasoning(self) -> ReasoningFormat | None:
        """How the model marks its reasoning; None if it does not reason. Formats like Harmony bring their own."""
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

    def grammar(
        self, request: Submit, chat: Chat, output_format: OutputFormat | None
    ) -> Callable[[], str | None] | None:
        """Return a function that makes the grammar of the answer; None if the answer is free.

        The function takes up to a second, and uses nothing of the model, so that any thread may call it.
        """
        tools = tools_of(chat)
        choice = chat.tool_choice
        constrains_calls = bool(tools) and (choice != "auto" or any(tool.strict for tool in tools))
        if not _is_constrained(request) and not constrains_calls:
            return None

        # Behind the beginning of its content, an answer neither reasons nor opens its content.
        is_content = output_format is not None and bool(output_format.begun) and not output_format.is_open
        tool_format = replace(self._format, own_reasoning=None, content_opener="") if is_content else self._format

        def make() -> str | None:
            return grammar_of(
                AnswerGrammar(
                    tool_format,
                    self._token_id,
                    None if is_content else self._reasoning,
                    prompt_ends_in_reasoning=output_format is not None and output_format.is_open,
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


def _lacks_system_text(messages: Sequence[Mapping[str, Any]], prompt: str) -> bool:
    """Whether a template has left out the text of a system turn at the beginning."""
    if not messages or messages[0]["role"] != "system" or not isinstance(messages[0]["content"], str):
        return False
    return messages[0]["content"].strip() not in prompt


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
