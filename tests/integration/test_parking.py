"""Idle prefixes leave the KV cache while others are computed beside them, and nobody misses them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from modelyard.engine.kv.offload import KvOffload
from modelyard.engine.kv.sequence import Sequence
from modelyard.protocol.prompts import Tokens
from modelyard.protocol.requests import Stop
from modelyard.protocol.values import SequenceId
from support.engine_driver import Driven, engine, long_prompt

OTHER = Tokens(tuple(range(1000, 1090)))


@pytest.fixture
def parked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of what was parked, in order."""
    lengths: list[int] = []
    prepare_step = KvOffload.prepare_step

    def noting(moves: KvOffload, admissible: Iterable[Sequence]) -> None:
        before = {id(prompt) for prompt in moves.parked}
        prepare_step(moves, admissible)
        lengths.extend(len(prompt.tokens) for prompt in moves.parked if id(prompt) not in before)

    monkeypatch.setattr(KvOffload, "prepare_step", noting)
    return lengths


@pytest.fixture(params=["smollm2", pytest.param("gemma3", marks=pytest.mark.long)])
def path(request: pytest.FixtureRequest, drawn_weights: dict[str, Path]) -> Path:
    return drawn_weights[request.param]


def next_turn(driven: Driven, prompt: Tokens, number: int) -> tuple[str, int]:
    text = driven.answer(prompt, number=number, max_tokens=24)
    return text, driven.finished(number).usage.cached_tokens


def test_a_conversation_goes_on_after_another_as_if_there_had_been_none(path: Path, parked: list[int]) -> None:
    turns = long_prompt(path, 120)
    first = Tokens(turns.ids[:100])
    answers = []
    for others in (0, 2):
        driven = engine(path)
        driven.answer(first, max_tokens=1)
        for number in range(1, 1 + others):
            driven.answer(OTHER, number=number, max_tokens=8)
        answers.append(next_turn(driven, turns, 10))
        driven.stopped(Stop())
    assert parked[0] == 100
    assert answers[0] == answers[1]
    assert answers[1][1] == 100


def test_two_conversations_in_turn_are_computed_once_each(path: Path) -> None:
    driven = engine(path)
    turns = long_prompt(path, 160)
    cached = []
    for number, length in enumerate((40, 80, 120, 160)):
        driven.answer(Tokens(turns.ids[:length]), number=2 * number, max_tokens=1)
        driven.answer(Tokens(OTHER.ids[: length // 2]), number=2 * number + 1, max_tokens=1)
        cached.append([driven.finished(2 * number + turn).usage.cached_tokens for turn in range(2)])
    driven.stopped(Stop())
    assert cached[1:] == [[40, 20], [80, 40], [120, 60]]


def test_what_is_parked_is_kept_beyond_the_engine(path: Path, parked: list[int]) -> None:
    driven = engine(path, kv_keep="memory", kv_keep_bytes=2**40)
    turns = long_prompt(path, 100)
    driven.answer(turns, max_tokens=1)
    driven.answer(OTHER, number=1, max_tokens=1)
    kept = driven.stopped(Stop(keep_bytes=2**40)).kept
    assert parked == [100]
    assert kept is not None
    assert [prompt.tokens for prompt in kept.prompts] == [OTHER.ids, turns.ids]


def test_many_streams_beside_parked_prefixes_all_end(path: Path, parked: list[int]) -> None:
    driven = engine(path)
    for number in range(24):
        driven.submit(number, Tokens(tuple(range(500 + 40 * (number % 6), 560 + 40 * (number % 6)))), max_tokens=8)
    driven.until(lambda: len(driven.ended) == 24)
    assert all(driven.finished(number).usage.completion_tokens == 8 for number in range(24))
    assert parked
    driven.stopped(Stop())
    assert SequenceId(0) in driven.texts
