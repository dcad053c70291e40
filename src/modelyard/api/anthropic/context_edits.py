"""Anthropic's ``context_management``: what is removed of a conversation before it becomes the prompt. Pure.

Source: https://platform.claude.com/docs/en/build-with-claude/context-editing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from modelyard.api.serving.bounded_items import Labels

Turns = Sequence[dict[str, Any]]
"""Turns of a conversation as chat templates read them."""

CLEARED: Final = "[old tool result content cleared]"
"""The text in place of a result that was cleared."""

_KEPT_TOOL_USES: Final = 3
_KEPT_THINKING_TURNS: Final = 1


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True)


class Amount(_Part):
    """A number of something: of tool uses, of turns with thinking, or of tokens."""

    type: str
    value: Annotated[int, Field(ge=0)] | None = None


class ContextEdit(_Part):
    """An edit of the conversation before it becomes the prompt. Its type decides which fields are read."""

    # Of an edit that is not applied, only its type is reported.
    known_extras: ClassVar[Collection[str]] = frozenset({"pause_after_compaction", "instructions"})

    type: str
    trigger: Amount | None = None
    keep: Amount | Literal["all"] | None = None
    clear_at_least: Amount | None = None
    clear_tool_inputs: bool | Labels[str] | None = None
    exclude_tools: Labels[str] | None = None

    @property
    def is_applied(self) -> bool:
        """Whether the edit is applied. How many tokens a conversation has is not known before it is rendered."""
        if self.type.startswith("clear_thinking_"):
            return True
        is_by_uses = self.trigger is not None and self.trigger.type == "tool_uses" and self.clear_at_least is None
        return self.type.startswith("clear_tool_uses_") and is_by_uses


@dataclass(frozen=True, slots=True)
class AppliedEdit:
    """What an edit has removed.

    Attributes:
        type: the type of the edit.
        cleared: how many tool uses, or turns with thinking.
        characters: how many characters the conversation became shorter.
    """

    type: str
    cleared: int
    characters: int


class ContextManagement(_Part):
    """Anthropic's ``context_management``."""

    edits: Labels[ContextEdit] = []

    def without_effect(self) -> Iterator[str]:
        """Yield the edits that are not applied."""
        for index, edit in enumerate(self.edits):
            if not edit.is_applied:
                yield f"edits[{index}] ({edit.type})"


def edited(turns: Turns, edits: Sequence[ContextEdit]) -> tuple[list[dict[str, Any]], list[AppliedEdit]]:
    """Return the turns after those of ``edits`` that are applied, and the edits that have removed something.

    The turns themselves are not modified.
    """
    result, applied = list(turns), list[AppliedEdit]()
    for edit in edits:
        if not edit.is_applied:
            continue
        removes = _without_thinking if edit.type.startswith("clear_thinking_") else _without_results
        before, result = result, removes(result, edit)
        pairs = [(old, new) for old, new in zip(before, result, strict=True) if old is not new]
        # With the results of old calls, their arguments may be removed, too: that is one tool use.
        cleared = sum(old["role"] == "tool" or removes is _without_thinking for old, _ in pairs)
        if cleared:
            applied.append(AppliedEdit(edit.type, cleared, sum(_length(old) - _length(new) for old, new in pairs)))
    return result, applied


def _length(value: Any) -> int:
    """Return the characters of all texts in ``value``."""
    if isinstance(value, dict):
        return sum(map(_length, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_length, value))
    return len(value) if isinstance(value, str) else 0


def _without_thinking(turns: Turns, edit: ContextEdit) -> list[dict[str, Any]]:
    """Return the turns without the reasoning of all but the last exchanges that have some.

    An exchange is what the assistant says and does between two turns of the user.
    """
    if edit.keep == "all" or (isinstance(edit.keep, Amount) and edit.keep.value is None):
        return list(turns)
    kept = edit.keep.value if isinstance(edit.keep, Amount) and edit.keep.value is not None else _KEPT_THINKING_TURNS
    result: list[dict[str, Any]] = []
    is_within, exchanges = False, 0
    for turn in reversed(turns):
        if turn["role"] == "user":
            is_within = False
        elif "reasoning_content" in turn:
            exchanges += not is_within
            is_within = True
            if exchanges > kept:
                turn = {name: value for name, value in turn.items() if name != "reasoning_content"}
        result.append(turn)
    return result[::-1]


def _without_results(turns: Turns, edit: ContextEdit) -> list[dict[str, Any]]:
    """Return the turns without the results of all but the last tool uses, once there are more than the trigger says."""
    excluded = frozenset(edit.exclude_tools or ())
    names = {call["id"]: call["function"]["name"] for turn in turns for call in turn.get("tool_calls", ())}
    uses = [turn["tool_call_id"] for turn in turns if turn["role"] == "tool"]
    assert edit.trigger is not None
    if len(uses) <= (edit.trigger.value or 0):
        return list(turns)
    kept = edit.keep.value if isinstance(edit.keep, Amount) and edit.keep.value is not None else _KEPT_TOOL_USES
    old = {use for use in uses[: max(len(uses) - kept, 0)] if names.get(use) not in excluded}
    return [_cleared(turn, old, edit.clear_tool_inputs) for turn in turns]


def _cleared(turn: dict[str, Any], old: Collection[str], inputs: bool | list[str] | None) -> dict[str, Any]:
    if turn["role"] == "tool" and turn["tool_call_id"] in old:
        return {**turn, "content": CLEARED}
    if inputs and any(call["id"] in old for call in turn.get("tool_calls", ())):
        return {**turn, "tool_calls": [_without_input(call, old, inputs) for call in turn["tool_calls"]]}
    return turn


def _without_input(call: dict[str, Any], old: Collection[str], inputs: bool | list[str]) -> dict[str, Any]:
    function = call["function"]
    if call["id"] not in old or (isinstance(inputs, list) and function["name"] not in inputs):
        return call
    arguments = "{}" if isinstance(function["arguments"], str) else {}
    return {**call, "function": {**function, "arguments": arguments}}
