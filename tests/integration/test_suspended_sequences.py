"""A suspended sequence that was written down, as for another process, goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from integration.test_suspend import NEAR_STOPS, PENALIZED, PROMPT, SEEDED, disturbed, undisturbed
from modelyard.engine.hosts.codec import decode, encode
from modelyard.protocol.prompts import Chat, Sampling, Text
from modelyard.protocol.suspended import SuspendedSequence
from support.engine_driver import GREEDY, Driven, Steps

GREEDY_PENALIZED = replace(PENALIZED, temperature=0.0)
# Draws between two tokens that are about as likely, so that the last bits of logits hardly ever decide one.
COIN = replace(SEEDED, temperature=10.0, text_bias={"a": 1000.0, "b": 1000.0})
DRY = replace(SEEDED, dry_multiplier=1.5, dry_allowed_length=1, dry_sequence_breakers=("\n",))
GREEDY_DRY = replace(DRY, temperature=0.0)
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "person",
        "schema": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
            "required": ["name", "age"],
            "additionalProperties": False,
        },
    },
}
CHAT = Chat(({"role": "user", "content": "Who are you?"},))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def written(state: SuspendedSequence) -> SuspendedSequence:
    """What another process makes of it."""
    data, blocks = encode(state)
    return decode(data, blocks)  # type: ignore[no-any-return]


def as_after_a_death(state: SuspendedSequence) -> SuspendedSequence:
    """What a server knows of it when its engine's process has died."""
    return written(state.without_kv())


# Without its KV state, the tokens of a sequence are computed again in one step, whose logits differ in their last bits
# on some processors. A draw among all tokens may then take another one, so that greedy texts are compared, and draws
# between two tokens.
@pytest.mark.parametrize(
    ("prompt", "sampling", "request_", "between"),
    [
        pytest.param(Text(PROMPT), GREEDY, {}, as_after_a_death, id="greedy", marks=pytest.mark.long),
        pytest.param(Text(PROMPT), SEEDED, {}, written, id="seeded", marks=pytest.mark.long),
        pytest.param(Text(PROMPT), PENALIZED, {}, written, id="penalties"),
        pytest.param(Text(PROMPT), GREEDY_PENALIZED, {}, as_after_a_death, id="greedy with penalties"),
        pytest.param(Text(PROMPT), COIN, {}, as_after_a_death, id="draws"),
        pytest.param(Text(PROMPT), DRY, {}, written, id="dry", marks=pytest.mark.long),
        pytest.param(Text(PROMPT), GREEDY_DRY, {}, as_after_a_death, id="greedy with dry", marks=pytest.mark.long),
        pytest.param(Text(PROMPT), PENALIZED, {"stop": NEAR_STOPS}, written, id="text held back"),
        pytest.param(
            Text("日本語"),
            replace(SEEDED, temperature=1.5),
            {},
            written,
            id="halves of characters",
            marks=pytest.mark.long,
        ),
        pytest.param(
            *(Text("日本語"), GREEDY_PENALIZED, {}, as_after_a_death),
            id="greedy with halves of characters",
            marks=pytest.mark.long,
        ),
        pytest.param(CHAT, SEEDED, {}, written, id="chat", marks=pytest.mark.long),
        pytest.param(CHAT, GREEDY, {"response_format": SCHEMA, "ignore_eos": False}, as_after_a_death, id="schema"),
        pytest.param(
            *(Text(PROMPT), GREEDY, {"prediction": "a long time ago"}, as_after_a_death),
            id="prediction",
            marks=pytest.mark.long,
        ),
    ],
)
def test_it_goes_on_with_the_text_of_the_undisturbed_one(
    drawn_weights: dict[str, Path],
    steps: Steps,
    prompt: Text | Chat,
    sampling: Sampling,
    request_: dict[str, Any],
    between: Callable[[SuspendedSequence], SuspendedSequence],
) -> None:
    path = drawn_weights["smollm2"]
    text, finished = undisturbed(path, prompt, sampling, **request_)
    answer = disturbed(path, steps, (5, 3), prompt, sampling, between, **request_)
    assert answer.text == text
    assert (answer.finished.reason, answer.finished.usage) == (finished.reason, finished.usage)


@pytest.mark.parametrize(
    ("sampling", "between"),
    [pytest.param(PENALIZED, written, marks=pytest.mark.long), (GREEDY_PENALIZED, as_after_a_death)],
)
def test_each_of_its_tokens_has_one_logprob_as_in_the_undisturbed_one(
    drawn_weights: dict[str, Path],
    steps: Steps,
    sampling: Sampling,
    between: Callable[[SuspendedSequence], SuspendedSequence],
) -> None:
    path = drawn_weights["smollm2"]
    driven = Driven(path)
    text = driven.answer(PROMPT, sampling, logprobs=2, stop=NEAR_STOPS)
    answer = disturbed(path, steps, (3, 1, 2), PROMPT, sampling, between, logprobs=2, stop=NEAR_STOPS)
    assert answer.text == text
    expected = next(iter(driven.logprobs.values()))
    assert [entry.token for entry in answer.logprobs] == [entry.token for entry in expected]
    assert [entry.logprob for entry in answer.logprobs] == pytest.approx([entry.logprob for entry in expected], abs=0.3)


@pytest.mark.long
def test_one_that_is_suspended_again_before_it_ran_is_the_same(drawn_weights: dict[str, Path], steps: Steps) -> None:
    states: list[SuspendedSequence] = []

    def note(state: SuspendedSequence) -> SuspendedSequence:
        states.append(written(state))
        return states[-1]

    disturbed(drawn_weights["smollm2"], steps, (6, 1), PROMPT, GREEDY, note)
    assert states[1].answer[: len(states[0].answer)] == states[0].answer
    assert states[1].prompt == states[0].prompt
