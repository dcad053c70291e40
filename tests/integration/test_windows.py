"""Layers with a sliding window lose what they no longer read: a prefix is only reused where its window is known."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from modelyard.protocol.events import ContextResized
from modelyard.protocol.messages import Restore, Resume
from modelyard.protocol.prompts import Tokens
from modelyard.protocol.requests import Resize, Stop
from modelyard.protocol.values import SequenceId
from support.engine_driver import Driven, Steps, engine, long_prompt

# Logits of cells that lie elsewhere differ in their last bits.
ROUNDING = 0.02

# Windows of 512 tokens, and steps of 64: layers with windows have 2304 cells.
SHORT = {"context_length": 6144, "max_seqs": 2, "prefix_slots": 2, "batch_tokens": 64, "is_windowed": True}
FULL = {**SHORT, "is_windowed": False}
KEEP = Stop(suspend=True, keep_bytes=2**40)


def words(seed: int, length: int) -> tuple[int, ...]:
    chance = random.Random(seed)
    return (2, *(chance.randrange(1000, 32_000) for _ in range(length - 1)))


def reused(driven: Driven, prompt: tuple[int, ...], number: int) -> int:
    """Tokens of a prompt that were not computed again."""
    driven.answer(Tokens(prompt), number=number, max_tokens=1)
    return driven.finished(number).usage.cached_tokens


@pytest.fixture
def driven(drawn_weights: dict[str, Path]) -> Iterator[Driven]:
    """An engine that computes prompts in short steps, after each of which llama.cpp looks for cells again."""
    driven = engine(drawn_weights["gemma3"], context_length=2304, batch_tokens=64)
    yield driven
    driven.stopped(Stop())


def test_a_prefix_whose_window_others_have_overwritten_is_computed_again(driven: Driven) -> None:
    for number, length in enumerate((600, 1472, 700)):
        reused(driven, words(number, length), number)
    # The third prompt took the cells of the first, and then those that windows of the second are past.
    branch = words(1, 1472)[:600] + words(3, 20)
    # All prompts have their first token in common.
    assert reused(driven, branch, 3) == 1


@pytest.fixture(scope="module")
def gemma(drawn_weights: dict[str, Path]) -> Path:
    return drawn_weights["gemma3"]


@pytest.fixture(scope="module")
def make(gemma: Path) -> Iterator[Callable[..., Driven]]:
    """Make an engine that stops at the end."""
    made: list[Driven] = []

    def started(**settings: object) -> Driven:
        made.append(engine(gemma, **settings))
        return made[-1]

    yield started
    for driven in made:
        if driven.over is None:
            driven.stopped(Stop())


def ask(driven: Driven, prompt: tuple[int, ...], number: int) -> tuple[int, list[float]]:
    """Tokens of a prompt that were not computed again, and the log-probabilities of the answer."""
    driven.answer(Tokens(prompt), number=number, max_tokens=8, logprobs=0)
    known = driven.finished(number).usage.cached_tokens
    return known, [each.logprob for each in driven.logprobs[SequenceId(number)]]


def test_prompts_are_reused_within_windows_and_at_checkpoints_and_change_no_answer(make: Callable[..., Driven]) -> None:
    first = words(10, 1300)
    prompts = [
        first,
        # The next turn, a branch behind a window that is known, and one within the last window.
        first + words(11, 40),
        first[:1100] + words(12, 40),
        first[:1290] + words(13, 30),
        # These take the cells of the windows before; what is left is a checkpoint after 1,024 tokens.
        words(14, 1500),
        words(15, 1500),
        words(16, 1500),
        first[:1200] + words(17, 30),
    ]
    short, full = make(**SHORT), make(**FULL)
    answers = [ask(short, prompt, number) for number, prompt in enumerate(prompts)]
    assert [known for known, _ in answers] == [0, 1300, 1100, 1290, 0, 0, 0, 1024]
    for number in (0, 1, 2, 3, 7):
        assert answers[number][1] == pytest.approx(ask(full, prompts[number], number)[1], abs=ROUNDING)


def test_a_suspended_answer_goes_on_and_drafts_change_none(
    gemma: Path, make: Callable[..., Driven], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = long_prompt(gemma, 1300)
    expected = make(**FULL).answer(prompt)
    driven = make(**SHORT, prompt_lookup=True, kv_keep="memory", kv_keep_bytes=2**40)
    assert driven.answer(prompt) == expected
    Steps(monkeypatch).after(8, partial(driven.send, KEEP))
    driven.submit(1, prompt)
    (state,) = driven.suspended()
    kept = driven.stopped().kept
    again = make(**SHORT, prompt_lookup=True, kv_keep="memory", kv_keep_bytes=2**40)
    assert kept is not None
    again.send(Restore(kept), Resume(state))
    again.finished(1)
    assert driven.texts[SequenceId(1)] + again.texts[SequenceId(1)] == expected


def test_sequences_that_share_a_prompt_go_on_while_windows_become_short(
    gemma: Path, make: Callable[..., Driven]
) -> None:
    prompt, settings = long_prompt(gemma, 700), {"max_tokens": 150}
    expected = make(**FULL).answer(prompt, **settings)
    driven = make(**SHORT, first_cells=1024)
    for number in (0, 1):
        driven.submit(number, prompt, **settings)
    driven.until(lambda: len(driven.texts) == 2)
    driven.send(Resize((4096,), 2**40))
    assert driven.next(ContextResized) == ContextResized(4096)
    for number in (0, 1):
        driven.finished(number)
        assert driven.texts[SequenceId(number)] == expected
