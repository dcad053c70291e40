"""A context that grows and shrinks between steps: sequences go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelyard.engine.llama import Context
from modelyard.errors import EngineError, UnusableModel
from modelyard.protocol.events import Cancelled, ContextResized, ContextWanted, Failed, Suspended, Token
from modelyard.protocol.prompts import Tokens
from modelyard.protocol.requests import Cancel, RefuseGrowth, Resize, Stop
from modelyard.protocol.values import SequenceId
from support.engine_driver import Driven, engine, long_prompt

PLENTY = 2**40
WHOLE = 1024
FIRST = 256
PROMPT, ANSWER = 203, 80


@pytest.fixture(scope="module", params=["smollm2", pytest.param("gemma3", marks=pytest.mark.long)])
def path(request: pytest.FixtureRequest, drawn_weights: dict[str, Path]) -> Path:
    return drawn_weights[request.param]


@pytest.fixture
def small(path: Path) -> Iterator[Driven]:
    """An engine with a fourth of the context that it may have."""
    driven = engine(path, context_length=WHOLE, first_cells=FIRST)
    yield driven
    driven.stopped(Stop())


@pytest.fixture(scope="module")
def expected(path: Path) -> str:
    """The answer of an engine that has the whole context from its beginning."""
    large = engine(path, context_length=WHOLE)
    text = large.answer(long_prompt(path, PROMPT), max_tokens=ANSWER)
    large.stopped(Stop())
    return text


def resized(driven: Driven, *sizes: int, keep_bytes: int = PLENTY) -> ContextResized:
    driven.send(Resize(sizes, keep_bytes))
    return driven.next(ContextResized)


def begin(driven: Driven, path: Path, number: int = 1) -> ContextWanted:
    """An answer that outgrows the context, until its engine says so."""
    driven.submit(number, long_prompt(path, PROMPT), max_tokens=ANSWER)
    return driven.next(ContextWanted)


def test_an_answer_goes_on_in_a_larger_context(path: Path, small: Driven, expected: str) -> None:
    wanted = begin(small, path)
    assert FIRST < wanted.needed <= wanted.desired <= WHOLE
    assert resized(small, 512) == ContextResized(512)
    finished = small.finished(1)
    assert small.texts[SequenceId(1)] == expected
    assert finished.usage.completion_tokens == ANSWER
    # The cells were moved, and not computed again.
    assert small.answer(long_prompt(path, PROMPT), number=2, max_tokens=1)
    assert small.finished(2).usage.cached_tokens == PROMPT - 1


def test_an_answer_waits_for_its_context_and_goes_on_where_it_was(path: Path, small: Driven, expected: str) -> None:
    begin(small, path)
    # Nothing of it is computed while it waits, and the wish is repeated.
    small.until(lambda: small.stats is not None and small.stats.waiting == 1 and small.stats.running == 0)
    assert small.next(ContextWanted).needed > FIRST
    assert SequenceId(1) not in small.ended
    resized(small, 512)
    small.finished(1)
    assert small.texts[SequenceId(1)] == expected


def test_what_has_no_room_meanwhile_is_computed_again(path: Path, small: Driven, expected: str) -> None:
    begin(small, path)
    assert resized(small, 512, keep_bytes=0) == ContextResized(512)
    small.finished(1)
    assert small.texts[SequenceId(1)] == expected


def test_a_context_that_cannot_be_made_stays_as_it_is(
    path: Path, small: Driven, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create: Callable[[Context, int], None] = Context._create

    def lacking(context: Context, cells: int) -> None:
        if cells > FIRST:
            raise UnusableModel("no memory")
        create(context, cells)

    begin(small, path)
    with monkeypatch.context() as patched:
        patched.setattr(Context, "_create", lacking)
        assert resized(small, 512) == ContextResized(FIRST, "no memory")
    resized(small, 512)
    small.finished(1)
    assert small.texts[SequenceId(1)] == expected


def test_prefixes_that_fit_a_smaller_context_stay(path: Path, small: Driven) -> None:
    resized(small, WHOLE)
    small.answer(long_prompt(path, 400), number=1, max_tokens=1)
    small.answer("Once upon a time, there was a sea, and in the sea a very old whale", number=2, max_tokens=1)
    assert resized(small, FIRST, 512) == ContextResized(FIRST)
    small.answer("Once upon a time, there was a sea, and in the sea a very old whale", number=3, max_tokens=1)
    assert small.finished(3).usage.cached_tokens > 8
    assert resized(small, FIRST) == ContextResized(FIRST, "its sequences need it")


def test_a_prefix_is_evicted_only_where_no_larger_context_comes(path: Path, small: Driven) -> None:
    prompt = long_prompt(path, PROMPT)
    small.answer(prompt, number=1, max_tokens=1)
    small.submit(2, "Once upon a time, there was a sea, and in the sea there was a very old whale. " * 4, max_tokens=1)
    wanted = small.next(ContextWanted)
    assert wanted.needed <= FIRST < wanted.desired
    resized(small, 512)
    small.finished(2)
    small.answer(prompt, number=3, max_tokens=1)
    assert small.finished(3).usage.cached_tokens == PROMPT - 1
    # Nobody answers the next wish, and the request is served all the same.
    small.answer(Tokens(tuple(range(1000, 1400))), number=4, max_tokens=1)


def test_a_context_shrinks_no_further_than_its_sequences_need(path: Path, small: Driven, expected: str) -> None:
    resized(small, WHOLE)
    small.submit(1, long_prompt(path, PROMPT), max_tokens=ANSWER)
    small.next(Token)
    assert resized(small, FIRST) == ContextResized(WHOLE, "its sequences need it")
    assert resized(small, FIRST, 512) == ContextResized(512)
    small.finished(1)
    assert small.texts[SequenceId(1)] == expected


def test_sequences_that_share_a_prefix_share_it_in_the_next_context(path: Path, small: Driven) -> None:
    prompt = long_prompt(path, PROMPT)
    for number in (1, 2, 3):
        small.submit(number, prompt, max_tokens=40)
    small.next(Token)
    # Three copies would not fit.
    resized(small, 512)
    for number in (1, 2, 3):
        small.finished(number)
    assert small.texts[SequenceId(1)] == small.texts[SequenceId(2)] == small.texts[SequenceId(3)]
    assert [small.finished(number).usage.cached_tokens for number in (2, 3)] == [PROMPT - 1, PROMPT - 1]


def test_a_growth_that_is_refused_ends_what_does_not_fit_by_itself(path: Path, small: Driven) -> None:
    begin(small, path)
    small.until(lambda: small.stats is not None and small.stats.waiting == 1 and small.stats.running == 0)
    refused = EngineError("test", "there is no memory")
    small.send(RefuseGrowth(refused))
    small.until(lambda: SequenceId(1) in small.ended)
    failed = small.ended[SequenceId(1)]
    assert isinstance(failed, Failed)
    assert failed.error is refused
    assert small.answer("The sea is", number=2, max_tokens=4)


def test_a_request_that_waits_for_a_context_can_be_cancelled_and_suspended(path: Path, small: Driven) -> None:
    begin(small, path)
    begin(small, path, 2)
    small.send(Cancel(SequenceId(1)))
    small.until(lambda: SequenceId(1) in small.ended)
    assert isinstance(small.ended[SequenceId(1)], Cancelled)
    small.stopped(Stop(suspend=True, keep_bytes=PLENTY))
    assert isinstance(small.ended[SequenceId(2)], Suspended)
