"""Answers that are guessed from what was said before: the same text in fewer steps. And prompts computed once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pytest

from modelyard.engine.llama import Batch, Context
from modelyard.engine.scheduling.step_cost import StepCost
from modelyard.protocol.events import Finished
from modelyard.protocol.messages import Resume
from modelyard.protocol.prompts import Sampling, Tokens
from modelyard.protocol.requests import Stop
from modelyard.protocol.values import SequenceId
from support.engine_driver import GREEDY, WORDS, Driven, Steps, engine, long_prompt

# A list that goes round: what follows was said before, and is so certain that it does not depend on which kernels the
# processor has. The first choice is at least 1.6 ahead of the second; with all the words it would be 0.4.
ROUND = "\n".join(f"Day {number % 5}: {WORDS[number % 5]}" for number in range(1, 31))
LENGTH = 48


class Work:
    """What engines compute.

    Attributes:
        steps: calls of llama.cpp.
        tokens: in all of them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = self.tokens = 0
        decode = Context.decode

        def counting(context: Context, batch: Batch, length: int) -> int:
            self.steps, self.tokens = self.steps + 1, self.tokens + length
            return decode(context, batch, length)

        monkeypatch.setattr(Context, "decode", counting)
        # How much is guessed is not to depend on the machine.
        monkeypatch.setattr(StepCost, "relative", lambda _, tokens: 0.65 + 0.35 * tokens)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


@pytest.fixture
def smollm2(weights: dict[str, Path]) -> Path:
    return weights["smollm2"]


@pytest.fixture
def drawn(drawn_weights: dict[str, Path]) -> Path:
    """For what is counted, and not read."""
    return drawn_weights["smollm2"]


@pytest.fixture
def guessing(smollm2: Path) -> Iterator[Driven]:
    driven = engine(smollm2, prompt_lookup=True)
    yield driven
    driven.stopped(Stop())


@cache
def plain(path: Path, prompt: str, **request: object) -> tuple[str, Finished]:
    """The answer, and how it ended, where nothing is guessed."""
    driven = engine(path)
    text = driven.answer(prompt, GREEDY, **request)
    driven.stopped(Stop())
    return text, driven.finished()


def test_what_was_said_before_comes_in_half_the_steps_with_the_same_text(
    smollm2: Path, guessing: Driven, work: Work
) -> None:
    expected, ended = plain(smollm2, ROUND, max_tokens=LENGTH)
    work.steps = 0
    assert guessing.answer(ROUND, max_tokens=LENGTH) == expected
    assert guessing.finished().usage == ended.usage
    assert work.steps < ended.usage.completion_tokens / 2


def test_an_answer_that_is_guessed_repeats(guessing: Driven) -> None:
    texts = {guessing.answer(ROUND, number=number, max_tokens=LENGTH) for number in range(3)}
    assert len(texts) == 1


@pytest.mark.parametrize("length", [pytest.param(17, marks=pytest.mark.long), 18])
def test_an_answer_ends_where_it_is_to_end_also_within_a_guess(smollm2: Path, guessing: Driven, length: int) -> None:
    expected, ended = plain(smollm2, ROUND, max_tokens=length)
    assert guessing.answer(ROUND, max_tokens=length) == expected
    assert guessing.finished().usage == ended.usage
    # What was guessed beyond it is not taken for what was said.
    again = guessing.answer(ROUND + expected, number=1, max_tokens=LENGTH)
    assert again == plain(smollm2, ROUND + expected, max_tokens=LENGTH)[0]


def test_a_stop_string_within_a_guess_ends_the_answer_before_it(smollm2: Path, guessing: Driven) -> None:
    request = {"max_tokens": LENGTH, "stop": ("whale",)}
    expected, ended = plain(smollm2, ROUND, **request)
    assert ended.reason == "stop"
    assert guessing.answer(ROUND, **request) == expected
    assert guessing.finished().usage.completion_tokens == ended.usage.completion_tokens


def test_a_seeded_draw_is_not_guessed_at_and_another_may_be(guessing: Driven, work: Work) -> None:
    guessing.answer(ROUND, Sampling(temperature=0.7, seed=3), max_tokens=LENGTH)
    seeded, work.steps = work.steps, 0
    guessing.answer(ROUND, Sampling(temperature=0.1), number=1, max_tokens=LENGTH)
    assert work.steps < LENGTH <= seeded


@pytest.mark.long
def test_an_answer_that_is_suspended_between_guesses_goes_on(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = plain(smollm2, ROUND, max_tokens=LENGTH)
    steps = Steps(monkeypatch)
    for after in (3, 8):
        first, second = engine(smollm2, prompt_lookup=True), engine(smollm2, prompt_lookup=True)
        steps.after(after, partial(first.send, Stop(suspend=True, keep_bytes=2**30)))
        first.submit(0, ROUND, max_tokens=LENGTH)
        (state,) = first.suspended()
        second.send(Resume(state))
        second.finished()
        assert first.texts[SequenceId(0)] + second.texts[SequenceId(0)] == expected
        second.stopped(Stop())


def test_a_long_prompt_that_comes_again_costs_one_token(drawn: Path, work: Work) -> None:
    driven, prompt = engine(drawn), long_prompt(drawn, 600)
    driven.answer(prompt, max_tokens=1)
    assert work.tokens == 600
    work.tokens = 0
    driven.answer(prompt, number=1, max_tokens=1)
    assert (work.tokens, driven.finished(1).usage.cached_tokens) == (1, 599)
    driven.stopped(Stop())


def test_a_beginning_that_several_prompts_share_is_computed_once(drawn: Path, work: Work) -> None:
    driven, system = engine(drawn), long_prompt(drawn, 700).ids
    for number in range(4):
        driven.submit(number, Tokens((*system, 100 + number, 200)), max_tokens=1)
    for number in range(4):
        driven.finished(number)
    assert work.tokens == 700 + 4 * 2
    driven.stopped(Stop())


@pytest.mark.parametrize("settings", [{"kv_type": "q8_0"}, {"flash_attn": False}, {"batch_tokens": 32}], ids=str)
def test_other_settings_of_the_context_give_an_answer_as_good(smollm2: Path, settings: dict[str, object]) -> None:
    driven = engine(smollm2, **settings)
    assert "Paris" in driven.answer("The capital of France is", max_tokens=8)
    # What was computed is found again.
    driven.answer("The capital of France is", number=1, max_tokens=1)
    assert driven.finished(1).usage.cached_tokens > 0
    driven.stopped(Stop())
