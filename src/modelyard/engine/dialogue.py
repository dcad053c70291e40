"""How one model talks: what its template is told of a conversation, and how its answers are to be read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.engine.deltas import OutputParser
from modelyard.engine.guidance import grammar as guidance
from modelyard.engine.messages import Chat, Grammar, NamedTool, Reading
from modelyard.engine.reasoning import REASONING, ReasoningFormat, reasoning_of
from modelyard.engine.template import ChatTemplate
from modelyard.engine.tools.format import Named, ToolFormat
from modelyard.engine.tools.generic import GENERIC, instructions
from modelyard.engine.tools.harmony import HARMONY
from modelyard.engine.tools.lark import Lark, TokenId
from modelyard.engine.tools.registry import FORMATS, control_tokens, format_of, parser
from modelyard.engine.tools.schema import NO_PARAMETERS, Tool


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


class Dialogue:
    """The chat template of one model, with the formats of its tool calls and its reasoning.

    Args:
        template: of the model.
        token_id: finds control tokens by their text.
        tool_format: its name in the registry; None: told from the template.
        reasoning: its name in the registry, "" for none; None: told from the template.
    """

    def __init__(
        self, template: ChatTemplate, token_id: TokenId, *, tool_format: str | None = None, reasoning: str | None = None
    ) -> None:
        self._template = template
        self._token_id = token_id
        self._knows_tools = "tools" in template.variables
        told = format_of(template.source) if self._knows_tools or "<|channel|>" in template.source else GENERIC
        self._format: ToolFormat = told if tool_format is None else FORMATS[tool_format]
        self._reasoning: ReasoningFormat | None = (
            reasoning_of(template.source) if reasoning is None else REASONING.get(reasoning)
        )
        markers = control_tokens(self._format, self._reasoning)
        # Control tokens that are to be seen in an answer that is read.
        self.spelt = frozenset(token for marker in markers if (token := token_id(marker)) is not None)

    def write(self, chat: Chat) -> Written:
        """The prompt of a conversation.

        Raises:
            InvalidRequest: the template refuses it.
        """
        tools = tools_of(chat)
        messages = [_for_template(message, knows_calls=self._knows_tools) for message in chat.messages]
        if tools and not self._knows_tools:
            messages = _with_system(messages, instructions(tools))
        text = self._template.render(messages, chat.tools if tools else (), chat.options)
        if not tools and self._reasoning is None and self._format.new_parser is None:
            return Written(text, None)
        name = "" if self._reasoning is None else self._reasoning.name
        is_open = self._reasoning is not None and self._reasoning.opened_by(text)
        return Written(text, Reading(self._format.name, name, is_open))

    def grammar(self, chat: Chat, reading: Reading | None, wanted: Grammar | None) -> Grammar | None:
        """What the answer must follow: ``wanted``, the calls that are demanded, or either; None: nothing."""
        tools = tools_of(chat)
        is_forced = bool(tools) and chat.tool_choice != "auto"
        is_strict = any(tool.strict for tool in tools)
        if reading is None:
            return wanted
        if tools and (is_forced or (is_strict and wanted is None)):
            return Grammar(self._calls(chat, tools, reading), "tools")
        if wanted is None:
            return None
        answer = guidance.after(self._lead(reading), wanted)
        if not tools:
            return answer
        return guidance.either(self._calls(chat, tools, reading, choice="required"), answer)

    def _calls(self, chat: Chat, tools: Sequence[Tool], reading: Reading, choice: str | None = None) -> str:
        named = chat.tool_choice
        wanted = choice or (Named(named.name) if isinstance(named, NamedTool) else named)
        return self._format.grammar(
            tools,
            wanted,  # type: ignore[arg-type]
            parallel=chat.parallel_tool_calls,
            token_id=self._token_id,
            reasoning=self._reasoning,
            prompt_ends_in_reasoning=reading.is_open,
        )

    def _lead(self, reading: Reading) -> str:
        """What comes before the answer proper, which is @answer: reasoning, where the model reasons."""
        lark = Lark(self._token_id, control_tokens(self._format, self._reasoning))
        if self._format is HARMONY:
            # Messages on other channels, then the one on the final channel.
            free = lark.any_text()
            header = f"{lark.text('<|channel|>')} {free} {lark.text('<|message|>')}"
            before = f"({header} {free} {lark.text('<|end|>')} {lark.text('<|start|>')} {free})*"
            return lark.grammar(f"{before} {lark.text('<|channel|>final<|message|>')} @answer")
        if self._reasoning is None:
            return lark.grammar("@answer")
        return lark.grammar(f"{_thought(lark, self._reasoning, is_open=reading.is_open)} @answer")


def _thought(lark: Lark, reasoning: ReasoningFormat, *, is_open: bool) -> str:
    space = lark.rule(r"/[ \n]{0,4}/")
    closed = f"{lark.text_until(reasoning.close)} {space}"
    return closed if is_open else f"({lark.text(reasoning.open)} {closed})?"


def _for_template(message: Mapping[str, Any], *, knows_calls: bool) -> dict[str, Any]:
    """A message as templates read it: the arguments of calls are objects, and content is text.

    A template that knows no tools is given calls as text, as the model was told to write them.
    """
    calls = message.get("tool_calls") or []
    read = [{**call, "function": {**call["function"], "arguments": _arguments(call["function"])}} for call in calls]
    content = message.get("content") or ""
    if not read:
        return {**{key: value for key, value in message.items() if key != "tool_calls"}, "content": content}
    if knows_calls:
        return {**message, "content": content, "tool_calls": read}
    written = "\n".join(
        json.dumps({"name": call["function"]["name"], "arguments": call["function"]["arguments"]}, ensure_ascii=False)
        for call in read
    )
    return {"role": message["role"], "content": "\n".join(filter(None, (content, written)))}


def _arguments(function: Mapping[str, Any]) -> Any:
    """The arguments of a call as the object that they stand for; as they came where they are none."""
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments


def _with_system(messages: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    if messages and messages[0].get("role") == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]
