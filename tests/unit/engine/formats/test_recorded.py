"""Every recorded answer is understood, however it is split."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.engine.formats.reasoning import REASONING
from modelyard.engine.formats.registry import FORMATS, parser
from modelyard.protocol.deltas import Delta, Message, ToolCall, fold
from unit.engine.formats.recorded import TOOLS, Recorded
from unit.engine.formats.recorded_families import ALL

BY_FORMAT = {"mistral-args": "mistral", "gemma": "gemma"}

each_recorded = pytest.mark.parametrize("answer", ALL, ids=lambda each: f"{each.of}: {each.what}")


def parsed(answer: Recorded, pieces: list[str]) -> tuple[Message, list[Delta]]:
    numbers = itertools.count()
    reader = parser(
        FORMATS[answer.of],
        REASONING[BY_FORMAT.get(answer.of, "think")],
        TOOLS,
        prompt_ends_in_reasoning=answer.inside,
        new_id=lambda: f"call-{next(numbers)}",
    )
    deltas = [delta for piece in pieces for delta in reader.push(piece)] + reader.finish()
    return fold(deltas), deltas


def readable(calls: tuple[ToolCall, ...]) -> tuple[tuple[str, object], ...]:
    return tuple((call.name, json.loads(call.arguments)) for call in calls)


@each_recorded
def test_an_answer_is_understood(answer: Recorded) -> None:
    message, _ = parsed(answer, [answer.text])
    assert readable(message.tool_calls) == answer.calls
    assert (message.content, message.reasoning) == (answer.content, answer.reasoning)


@each_recorded
def test_an_answer_is_the_same_a_character_at_a_time(answer: Recorded) -> None:
    assert parsed(answer, list(answer.text))[0] == parsed(answer, [answer.text])[0]


@each_recorded
def test_an_answer_is_the_same_in_any_two_pieces(answer: Recorded) -> None:
    whole = parsed(answer, [answer.text])[0]
    for cut in range(1, len(answer.text)):
        assert parsed(answer, [answer.text[:cut], answer.text[cut:]])[0] == whole, cut


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(ALL), st.lists(st.integers(0, 999)))
def test_an_answer_is_the_same_in_any_pieces(answer: Recorded, cuts: list[int]) -> None:
    at = sorted({0, len(answer.text), *(cut % (len(answer.text) + 1) for cut in cuts)})
    pieces = [answer.text[a:b] for a, b in itertools.pairwise(at)]
    assert parsed(answer, pieces)[0] == parsed(answer, [answer.text])[0]
