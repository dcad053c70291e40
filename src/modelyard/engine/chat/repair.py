"""From a conversation to one that a template takes, without a change of what it means.

Turns that the template does not take are merged, moved, split, or written in words that it has; nothing is left out.
Each function is pure, and appends a phrase to ``notes`` for each of its repairs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from modelyard.engine.chat.capabilities import CallStyle, Capabilities
from modelyard.engine.formats.format import ToolFormat
from modelyard.engine.formats.messages import REASONING, Turn
from modelyard.engine.formats.written_calls import result_label, write_calls

_MAX_NOTES: Final = 16
_BETWEEN: Final = "\n\n"
_SHORT_ID: Final = re.compile(r"[a-zA-Z0-9]{9}")


def fit(
    turns: Sequence[Turn], takes: Capabilities, style: CallStyle | None, tool_format: ToolFormat, notes: list[str]
) -> list[Turn]:
    """Return a conversation that a template takes; the same one if it takes that.

    Args:
        turns: the conversation.
        takes: what the template takes.
        style: how it takes calls in this conversation; None: calls are written as text.
        tool_format: how the model writes calls.
        notes: gets a phrase for each repair.
    """
    fitted = _with_written_calls(turns, takes, style, tool_format, notes)
    fitted = _with_systems(fitted, takes, notes)
    fitted = _merged(fitted, not takes.user_pairs, not takes.assistant_pairs, notes)
    if style is not None:
        fitted = _split(fitted, takes, style, notes)
        fitted = _bridged(fitted, style, notes)
    is_call_first = style is None or style.first
    if not takes.assistant_first or not is_call_first:
        fitted = _begun_by_the_user(fitted, is_call_first, notes)
    if not takes.system_alone and fitted and all(turn.role == "system" for turn in fitted):
        fitted.append(_empty("user"))
        notes.append("added an empty turn of the user")
    return fitted


def flatten(turns: Sequence[Turn], takes: Capabilities, tool_format: ToolFormat, notes: list[str]) -> list[Turn]:
    """Return a conversation of users' and assistant's turns that alternate, behind a system turn if there are any.

    Every template takes it that takes conversations at all.
    """
    strict = Capabilities(
        system=takes.system,
        two_systems=False,
        later_system=False,
        user_pairs=False,
        assistant_pairs=False,
        assistant_first=False,
        calls=None,
        lone_results=False,
    )
    flat = fit(turns, strict, None, tool_format, notes)
    if flat and all(turn.role != "user" for turn in flat):
        at = sum(turn.role == "system" for turn in flat)
        flat.insert(at, _empty("user"))
        notes.append("added an empty turn of the user")
    return flat


def listed(notes: Sequence[str]) -> tuple[str, ...]:
    """Return the first notes, and how many there are more."""
    if len(notes) <= _MAX_NOTES:
        return tuple(notes)
    return (*notes[:_MAX_NOTES], f"and {len(notes) - _MAX_NOTES} more")


def to_messages(turns: Sequence[Turn], takes: Capabilities, style: CallStyle | None) -> list[Mapping[str, Any]]:
    """Return the messages of ``turns`` as a template reads them."""
    return [_for_template(turn, takes, style or CallStyle()) for turn in turns]


def _for_template(turn: Turn, takes: Capabilities, style: CallStyle) -> Mapping[str, Any]:
    message = dict(turn.message)
    if takes.reasoning != REASONING and REASONING in message:
        message[takes.reasoning] = message.pop(REASONING)
    if style.short_ids and message.get("tool_call_id"):
        message["tool_call_id"] = _short_id(message["tool_call_id"])
    if turn.calls:
        message["tool_calls"] = [_call_for_template(call, style) for call in turn.calls]
        if not message["content"]:
            message["content"] = style.empty_content
    return message


def _call_for_template(call: Mapping[str, Any], style: CallStyle) -> Mapping[str, Any]:
    if not style.arguments_are_text and not style.short_ids:
        return call
    function = call["function"]
    if style.arguments_are_text:
        function = {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}
    return {**call, "id": _short_id(call["id"]) if style.short_ids else call["id"], "function": function}


def _short_id(call_id: str) -> str:
    if _SHORT_ID.fullmatch(call_id):
        return call_id
    return hashlib.blake2b(call_id.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()[:9]


def _with_written_calls(
    turns: Sequence[Turn], takes: Capabilities, style: CallStyle | None, tool_format: ToolFormat, notes: list[str]
) -> list[Turn]:
    """Write calls and results as text where the template does not take them."""
    out: list[Turn] = []
    is_called = False
    for index, turn in enumerate(turns):
        if turn.calls:
            is_answered = index + 1 < len(turns) and turns[index + 1].role == "tool"
            is_called = style is not None and (is_answered or style.unanswered)
            if not is_called:
                text = write_calls(turn.calls, tool_format)
                rest = {key: value for key, value in turn.message.items() if key != "tool_calls"}
                turn = Turn({**rest, "content": _joined([turn.message["content"], text], "\n")}, turn.places)
                notes.append(f"wrote the calls of {turn.where} as text")
        elif turn.role == "tool":
            if not is_called and not takes.lone_results:
                content = _joined([result_label(turn.message), turn.message["content"]], "")
                turn = Turn({"role": "user", "content": content}, turn.places)
                notes.append(f"wrote the result in {turn.where} as text")
        else:
            is_called = False
        out.append(turn)
    return out


def _with_systems(turns: Sequence[Turn], takes: Capabilities, notes: list[str]) -> list[Turn]:
    count = next((index for index, turn in enumerate(turns) if turn.role != "system"), len(turns))
    leading, rest = list(turns[:count]), list(turns[count:])
    if len(leading) > 1 and not takes.two_systems:
        leading = [_together(leading, notes)]
    if not takes.later_system:
        for index, turn in enumerate(rest):
            if turn.role == "system":
                rest[index] = Turn({**turn.message, "role": "user"}, turn.places)
                notes.append(f"moved {turn.where} from the system to the user")
    if not leading or takes.system:
        return [*leading, *rest]
    system = _together(leading, notes)
    if system.places:
        notes.append(f"moved {system.where} from the system to the user")
    system = Turn({**system.message, "role": "user"}, system.places)
    if rest and rest[0].role == "user":
        return [_together([system, rest[0]], []), *rest[1:]]
    return [system, *rest]


def _merged(turns: Sequence[Turn], users: bool, assistants: bool, notes: list[str]) -> list[Turn]:
    groups: list[list[Turn]] = []
    for turn in turns:
        last = groups[-1][-1] if groups else None
        is_pair = last is not None and last.role == turn.role
        if last is not None and is_pair and _is_mergeable(last, users=users, assistants=assistants):
            groups[-1].append(turn)
        else:
            groups.append([turn])
    return [_together(group, notes) for group in groups]


def _is_mergeable(turn: Turn, *, users: bool, assistants: bool) -> bool:
    # Text behind a call would come before it.
    return (users and turn.role == "user") or (assistants and turn.role == "assistant" and not turn.calls)


def _together(turns: Sequence[Turn], notes: list[str]) -> Turn:
    """Return one turn that says what ``turns`` say."""
    if len(turns) == 1:
        return turns[0]
    message: dict[str, Any] = {}
    for turn in turns:
        message |= turn.message
    message["content"] = _joined([turn.message["content"] for turn in turns], _BETWEEN)
    thoughts = [turn.message[REASONING] for turn in turns if turn.message.get(REASONING)]
    if thoughts:
        message[REASONING] = _BETWEEN.join(thoughts)
    together = Turn(message, tuple(place for turn in turns for place in turn.places))
    if all(turn.places for turn in turns):
        notes.append(f"merged {together.where}")
    return together


def _split(turns: Sequence[Turn], takes: Capabilities, style: CallStyle, notes: list[str]) -> list[Turn]:
    """Give turns of their own to the text before calls, and to each of several calls with its result."""
    out: list[Turn] = []
    # Indexes of results that stand behind their calls already.
    moved: set[int] = set()
    for index, turn in enumerate(turns):
        if index in moved:
            continue
        if not turn.calls:
            out.append(turn)
            continue
        message = dict(turn.message)
        if message["content"] and not style.with_content:
            said = {key: value for key, value in message.items() if key not in ("tool_calls", REASONING)}
            out.append(Turn(said, turn.places))
            if not takes.assistant_pairs:
                out.append(_empty("user"))
            message["content"] = ""
            notes.append(f"split the text of {turn.where} from its calls")
        if len(turn.calls) == 1 or style.several:
            out.append(Turn(message, turn.places))
            continue
        results = _results(turns, index + 1)
        for call in turn.calls:
            out.append(Turn({**message, "tool_calls": [call]}, turn.places))
            message = {key: value for key, value in message.items() if key != REASONING} | {"content": ""}
            if (at := results.pop(call["id"], None)) is not None:
                out.append(turns[at])
                moved.add(at)
        notes.append(f"split the calls of {turn.where}")
    return out


def _results(turns: Sequence[Turn], at: int) -> dict[str, int]:
    """Return the indexes of the results that follow each other from ``at`` on, by the ids of their calls."""
    found: dict[str, int] = {}
    while at < len(turns) and turns[at].role == "tool":
        found.setdefault(turns[at].message.get("tool_call_id") or "", at)
        at += 1
    return found


def _bridged(turns: Sequence[Turn], style: CallStyle, notes: list[str]) -> list[Turn]:
    """Put an empty turn of the assistant between a result and a user's turn, where the template needs one."""
    if style.user_next or style.bridge is None:
        return list(turns)
    out: list[Turn] = []
    for turn in turns:
        if turn.role == "user" and out and out[-1].role == "tool":
            out.append(_empty("assistant", style.bridge))
            notes.append(f"put an empty turn of the assistant before {turn.where}")
        out.append(turn)
    return out


def _begun_by_the_user(turns: list[Turn], is_call_first: bool, notes: list[str]) -> list[Turn]:
    """Put an empty turn of the user before an assistant's at the beginning, other than one that calls if that may."""
    begins = (turn for turn in turns if turn.role == "user" or (turn.role == "assistant" and not turn.calls))
    first = next(begins, None) if is_call_first else next((turn for turn in turns if turn.role != "system"), None)
    if first is None or first.role == "user":
        return turns
    at = next(index for index, turn in enumerate(turns) if turn.role != "system")
    notes.append(f"put an empty turn of the user before {first.where}")
    return [*turns[:at], _empty("user"), *turns[at:]]


def _empty(role: str, content: str = "") -> Turn:
    return Turn({"role": role, "content": content}, ())


def _joined(contents: Sequence[Any], between: str) -> Any:
    """Return several contents in one: texts, or lists of parts."""
    said = [content for content in contents if content]
    if all(isinstance(content, str) for content in said):
        return between.join(said)
    return [part for content in said for part in _parts(content)]


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
