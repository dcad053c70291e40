"""What published chat templates write for an assistant's turn: the text that their models learn to answer with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from modelyard.engine.chat.template_processes import TemplateProcesses
from modelyard.engine.formats.format import ToolFormat
from modelyard.engine.formats.reasoning import ReasoningFormat, reasoning_of
from modelyard.engine.formats.registry import format_of
from support.templates import templates

_PROCESSES = TemplateProcesses()

# Tokens that end an answer, at which an engine stops.
_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|assistant_end|>",
    "<|role_end|>",
    "<|end_of_msg|>",
    "<|message_sep|>",
    "<|tool_response>",
    "<|eot|>",
    "<｜end▁of▁sentence｜>",
    "<｜hy_eos:opensource｜>",
    "<end_of_sentence>",
    "<seed:eos>",
    "<turn|>",
    "<SPECIAL_12>",
    "</assistant>",
    "<sep>",
    "[e~[",
    "\n<|end|>\n",
    "</s>",
)


class NotRendered(Exception):
    """The template does not write such a turn."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call in a turn, and the JSON schema of its arguments."""

    name: str
    arguments: Mapping[str, Any]
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """An assistant's turn."""

    calls: tuple[Call, ...]
    content: str = ""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class WrittenTurn:
    """A turn as a template writes it: the answer, and whether its prompt has opened reasoning."""

    text: str
    is_open: bool


class TurnWriter:
    """Writes turns with one published template.

    Attributes:
        format: the tool-call format that is told from the template.
        reasoning: its reasoning format.
    """

    def __init__(self, name: str) -> None:
        self._name, self._source = name, templates()[name]
        self._ends = [end for end in _ENDS if not (name == "GigaChat3-10B-A1.8B" and end == "<|message_sep|>")]
        self.format: ToolFormat = format_of(self._source)
        self.reasoning: ReasoningFormat | None = reasoning_of(self._source)

    @property
    def can_reason(self) -> bool:
        """Whether reasoning is told apart."""
        return self.reasoning is not None or self.format.own_reasoning is not None

    def write(self, turn: Turn) -> WrittenTurn:
        """Return the text of ``turn``.

        Raises:
            NotRendered: the template refuses it.
        """
        names = {call.name: call for call in turn.calls}
        tools = [
            {"type": "function", "function": {"name": name, "description": "d", "parameters": call.schema}}
            for name, call in names.items()
        ]
        user = {"role": "user", "content": "hi"}
        message = {"role": "assistant", "content": turn.content, "reasoning_content": turn.reasoning}
        message |= {"reasoning": turn.reasoning, "thinking": turn.reasoning}
        base = self._render([user], tools, open=False)
        opened = self._render([user], tools, open=True)
        try:
            full = self._render([user, {**message, "tool_calls": _calls(turn, as_text=False)}], tools, open=False)
        except NotRendered:
            full = self._render([user, {**message, "tool_calls": _calls(turn, as_text=True)}], tools, open=False)
        head = opened[len(base) :] if opened.startswith(base) else ""
        is_open = False
        if self.reasoning is not None:
            # What the prompt has of reasoning is left to the answer, as far as the answer begins with it.
            role, marker, _ = head.partition(self.reasoning.open)
            head = role.partition(self.reasoning.close)[0]
            is_open = bool(marker)
        rest = full[len(base) :] if full.startswith(base) else full[len(_common(base, full)) :]
        text = rest.removeprefix(head if rest.startswith(head) else head.rstrip())
        for end in self._ends:
            at = text.find(end)
            text = text[:at] if at >= 0 else text
        if self.reasoning is None or self.reasoning.open.strip() in text:
            return WrittenTurn(text, False)
        return WrittenTurn(text, is_open and self.reasoning.close in text)

    def _render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], *, open: bool) -> str:  # noqa: A002
        names = {
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": open,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "thinking": True,
            "enable_thinking": True,
        }
        answer = _PROCESSES.ask(self._name, self._source, json.dumps(names).encode())
        if "text" not in answer:
            raise NotRendered(str(answer))
        return str(answer["text"])


def _calls(turn: Turn, *, as_text: bool) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call{index:05}",
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": json.dumps(call.arguments, ensure_ascii=False) if as_text else call.arguments,
            },
        }
        for index, call in enumerate(turn.calls)
    ]


def _common(one: str, other: str) -> str:
    at = 0
    while at < min(len(one), len(other)) and one[at] == other[at]:
        at += 1
    return one[:at]


@cache
def writer(name: str) -> TurnWriter:
    """Return the writer of the template ``name``, the same in each call."""
    return TurnWriter(name)
