"""What a chat template takes, found out once by trying it with short conversations.

A template says nowhere which conversations it can write out. Some raise an exception at what they do not know, others
leave it out in silence. So each trial holds words that occur nowhere else, and counts as taken if the prompt has every
word once, in order.

Two lists of trials are rendered, of 19 and 14 prompts, each list in one request. llama.cpp tries templates in the same
way. Source: llama.cpp, common/jinja/caps.cpp.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final, Protocol

from modelyard.engine.chat.template import Trial
from modelyard.engine.formats.messages import REASONING


class TriesTemplates(Protocol):
    """Renders conversations with a template; see ``ChatTemplate.try_all``."""

    def try_all(self, trials: Sequence[Trial]) -> list[str | None]:
        """Return the prompt for each conversation; None for those that the template refuses or fails at."""


@dataclass(frozen=True, slots=True)
class CallStyle:
    """How a template takes the calls of functions in a history, and their results.

    Attributes:
        arguments_are_text: whether it takes arguments as JSON text; else as objects.
        empty_content: the content of a turn that only calls: "" or None.
        short_ids: whether ids must be nine letters and digits, as in Mistral's templates.
        several: whether a turn may have more than one call.
        with_content: whether a turn with calls may have content.
        first: whether a call may be in the first turn. Some templates take the first turn for the user's if there are
            tools.
        unanswered: whether a call may have no result.
        user_next: whether a user's turn may follow a result.
        bridge: the content of an assistant's turn between a result and a user's turn, where one must stand there: empty
            or blank; None: neither is taken.
        without_tools: whether all this holds for a request without tools.
    """

    arguments_are_text: bool = False
    empty_content: str | None = ""
    short_ids: bool = False
    several: bool = True
    with_content: bool = True
    first: bool = True
    unanswered: bool = True
    user_next: bool = True
    bridge: str | None = ""
    without_tools: bool = True


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The turns that a template takes.

    Attributes:
        system: a system turn at the beginning.
        system_alone: nothing but a system turn.
        two_systems: two system turns at the beginning.
        later_system: a system turn further on.
        user_pairs, assistant_pairs: two turns of one role in a row.
        assistant_first: an assistant's turn at the beginning.
        calls: how it takes calls; None: it leaves them out or refuses them.
        lone_results: results of functions without a call before them.
        reasoning: the field for the reasoning of earlier turns; it may write that for the latest turns only.
        tools_are_list: whether it must get an empty list where there are no tools.
    """

    system: bool = True
    system_alone: bool = True
    two_systems: bool = True
    later_system: bool = True
    user_pairs: bool = True
    assistant_pairs: bool = True
    assistant_first: bool = True
    calls: CallStyle | None = CallStyle()
    lone_results: bool = True
    reasoning: str = REASONING
    tools_are_list: bool = False


_TOOL: Final = {
    "type": "function",
    "function": {
        "name": "trial_function",
        "description": "Looks up.",
        "parameters": {
            "type": "object",
            "properties": {"key": {"type": "string", "description": "The key."}},
            "required": ["key"],
        },
    },
}
_STYLES: Final = tuple(
    CallStyle(arguments_are_text=as_text, empty_content=empty, short_ids=short)
    for short, as_text, empty in product((False, True), (False, True), ("", None))
)
_REASONING_FIELDS: Final = (REASONING, "thinking", "reasoning")
_BRIDGES: Final = ("", " ")


def capabilities_of(template: TriesTemplates) -> Capabilities:
    """Return what ``template`` takes; all of it for a template that does not take even a single message."""
    takes = _first(template)
    if takes is None and (takes := _first(_WithToolList(template))) is not None:
        takes = replace(takes, tools_are_list=True)
    if takes is None:
        return Capabilities()
    return takes if takes.calls is None else _second(template, takes)


def call_id(number: int, *, short: bool) -> str:
    """Return an id for a call: one that is nine letters and digits, or one of OpenAI's form."""
    return f"trial{number:04}" if short else f"call_trial_{number:06}"


def _first(template: TriesTemplates) -> Capabilities | None:
    """Return what the template takes, but for the details of calls; None if it takes nothing at all."""
    trials = {
        "plain": _turns("U1"),
        "system": _turns("S1 U2"),
        "system alone": _turns("S1"),
        "two systems": _turns("S1 S2 U3"),
        "later system": _turns("S1 U2 A3 S4 U5"),
        "last system": _turns("U1 A2 U3 S4"),
        "user pairs": _turns("U1 U2 A3 U4 U5"),
        "assistant pairs": _turns("U1 A2 A3 U4"),
        "assistant first": _turns("A1 U2"),
        "lone first result": [_result(1, CallStyle()), *_turns("U2")],
        "lone result": [*_turns("U1"), _result(2, CallStyle()), *_turns("A3 U4")],
    }
    exchanges = [_exchange(style) for style in _STYLES]
    prompts = template.try_all(
        [
            *(Trial(messages) for messages in trials.values()),
            *(Trial(messages, (_TOOL,)) for messages in exchanges),
        ]
    )
    taken = {name: _has(prompt, trials[name]) for name, prompt in zip(trials, prompts, strict=False)}
    if not taken["plain"]:
        return None
    calls = next(
        (
            style
            for style, messages, prompt in zip(_STYLES, exchanges, prompts[len(trials) :], strict=True)
            if _has(prompt, messages)
        ),
        None,
    )
    return Capabilities(
        # Some templates write the system text into a turn further on, so its order does not matter.
        system=_has(prompts[1], trials["system"], in_order=False),
        system_alone=taken["system alone"],
        two_systems=_has(prompts[3], trials["two systems"], in_order=False),
        later_system=taken["later system"] and taken["last system"],
        user_pairs=taken["user pairs"],
        assistant_pairs=taken["assistant pairs"],
        assistant_first=taken["assistant first"],
        calls=calls,
        lone_results=taken["lone first result"] and taken["lone result"],
    )


def _second(template: TriesTemplates, takes: Capabilities) -> Capabilities:
    style = takes.calls
    assert style is not None
    asked = [*_turns("U1"), _call(style, 2)]
    answered = [*asked, _result(3, style)]
    both = [*_turns("U1"), _call(style, 2), _call(style, 3)]
    several = {**both[1], "tool_calls": [*both[1]["tool_calls"], *both[2]["tool_calls"]]}
    trials = {
        "several": [*_turns("U1"), several, _result(4, style, 2), _result(5, style, 3), *_turns("A6 U7")],
        "content": [*_turns("U1"), {**_call(style, 3), "content": _word(2)}, _result(4, style, 3), *_turns("A5 U6")],
        "first": [_call(style, 1), _result(2, style), *_turns("U3")],
        "unanswered": [*asked, *_turns("A3 U4")],
        "unanswered user": [*asked, *_turns("U3")],
        "unanswered last": asked,
        "user next": [*answered, *_turns("U4")],
        "without tools": [*answered, *_turns("A4 U5")],
        "without tools last": answered,
    }
    thoughts = {field: [*_turns("U1"), {**_call(style, 3), field: _word(2)}] for field in _REASONING_FIELDS}
    trials |= {field: [*messages, _result(4, style, 3)] for field, messages in thoughts.items()}
    trials |= {
        f"bridge {bridge!r}": [*answered, {"role": "assistant", "content": bridge}, *_turns("U4")]
        for bridge in _BRIDGES
    }
    tools_are_list = () if takes.tools_are_list else None
    prompts = template.try_all(
        [
            Trial(messages, () if name.startswith("without") else (_TOOL,), without_tools=tools_are_list)
            for name, messages in trials.items()
        ]
    )
    taken = {name: _has(prompt, trials[name]) for name, prompt in zip(trials, prompts, strict=True)}
    return replace(
        takes,
        reasoning=next((field for field in _REASONING_FIELDS if taken[field]), REASONING),
        calls=replace(
            style,
            several=taken["several"],
            with_content=taken["content"],
            first=taken["first"] or not taken["user next"],
            unanswered=taken["unanswered"] and taken["unanswered user"] and taken["unanswered last"],
            user_next=taken["user next"],
            bridge=next((bridge for bridge in _BRIDGES if taken[f"bridge {bridge!r}"]), None),
            without_tools=taken["without tools"] and taken["without tools last"],
        ),
    )


class _WithToolList:
    """Gives a template an empty list where there are no tools."""

    def __init__(self, template: TriesTemplates) -> None:
        self._template = template

    def try_all(self, trials: Sequence[Trial]) -> list[str | None]:
        return self._template.try_all([replace(trial, without_tools=()) for trial in trials])


def _word(number: int) -> str:
    return f"lorem{number}ipsum"


def _turns(pattern: str) -> list[dict[str, Any]]:
    """Return the turns of a pattern such as "S1 U2": the first letter of a role, and the number of a word."""
    roles = {"S": "system", "U": "user", "A": "assistant"}
    return [{"role": roles[turn[0]], "content": _word(int(turn[1:]))} for turn in pattern.split()]


def _call(style: CallStyle, number: int) -> dict[str, Any]:
    """Return a turn that calls the function with the word of ``number``, which is also the number of its id."""
    arguments: Any = {"key": _word(number)}
    if style.arguments_are_text:
        arguments = json.dumps(arguments)
    function = {"name": "trial_function", "arguments": arguments}
    call = {"id": call_id(number, short=style.short_ids), "type": "function", "function": function}
    return {"role": "assistant", "content": style.empty_content, "tool_calls": [call]}


def _result(number: int, style: CallStyle, call: int | None = None) -> dict[str, Any]:
    return {
        "role": "tool",
        "tool_call_id": call_id(number - 1 if call is None else call, short=style.short_ids),
        "name": "trial_function",
        "content": _word(number),
    }


def _exchange(style: CallStyle) -> list[dict[str, Any]]:
    return [*_turns("U1"), _call(style, 2), _result(3, style), *_turns("A4 U5")]


def _has(prompt: str | None, messages: Sequence[dict[str, Any]], *, in_order: bool = True) -> bool:
    """Whether a prompt has every word of a conversation, once."""
    if prompt is None:
        return False
    # Text that was quoted once more, and a dictionary as Python writes it, are no arguments.
    if '\\"key\\"' in prompt or "'key': 'lorem" in prompt:
        return False
    words = _words(messages)
    places = [prompt.find(word) for word in words]
    if any(prompt.count(word) != 1 for word in words):
        return False
    return not in_order or places == sorted(places)


def _words(messages: Sequence[dict[str, Any]]) -> list[str]:
    return sorted({word for word in map(_word, range(1, 8)) if word in json.dumps(messages)})
