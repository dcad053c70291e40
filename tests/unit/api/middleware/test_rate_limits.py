"""What a key may have in a minute, at any times and in any amounts."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.api.middleware.rate_limits import Bucket, CallLimits, KeyLimits, Reservation, duration
from modelyard.config import AccessKey
from modelyard.errors import ConcurrencyLimited, RateLimited, TokensReserved
from modelyard.protocol.values import Usage
from modelyard.yard.requests.token_estimate import TokenEstimate

per_minute = st.integers(1, 10**6)
pauses = st.lists(st.floats(0, 300), min_size=1, max_size=60)
amounts = st.integers(0, 10**6)


def limits(requests: int | None = None, tokens: int | None = None, concurrent: int | None = None) -> KeyLimits:
    key = AccessKey("k", b"", None, frozenset(), requests, tokens, max_concurrent=concurrent)
    return KeyLimits(key, now=0.0)


def calls(key: KeyLimits) -> CallLimits:
    """What the yard asks, at a time that stands still."""
    return CallLimits(key, lambda: 0.0)


def of(prompt: int, answer: int | None, room: int | None = 2048) -> TokenEstimate:
    return TokenEstimate(prompt, answer, room)


def wait_of(key: KeyLimits, now: float) -> int | None:
    """Seconds after which the key is to come again; None: it was let in."""
    try:
        key.admit(now)
    except RateLimited as limited:
        return limited.retry_after_s
    return None


@given(rate=st.integers(1, 100), pauses=pauses)
def test_no_more_requests_pass_than_one_minutes_worth_and_what_the_time_gives(rate: int, pauses: list[float]) -> None:
    key, now, passed = limits(requests=rate), 0.0, 0
    for pause in pauses:
        now += pause
        for _ in range(rate + 1):
            with suppress(RateLimited):
                key.admit(now)
                passed += 1
        assert passed <= rate + now * rate / 60 + 1e-6


@given(rate=st.integers(1, 1000), pauses=pauses)
def test_whoever_comes_again_when_told_to_is_let_in(rate: int, pauses: list[float]) -> None:
    key, now = limits(requests=rate), 0.0
    for pause in pauses:
        now += pause / 100
        wait_s = wait_of(key, now)
        if wait_s is not None:
            assert 1 <= wait_s <= math.ceil(60 / rate)
            now += wait_s
            key.admit(now)


@given(rate=per_minute, used=amounts)
def test_a_debt_of_tokens_is_paid_off_before_the_next_request(rate: int, used: int) -> None:
    key = limits(tokens=rate)
    key.admit(0.0)
    key.record_usage(used, 0.0)
    if used <= rate - 1:
        key.admit(0.0)
        return
    with pytest.raises(RateLimited) as limited:
        key.admit(0.0)
    wait_s = limited.value.retry_after_s
    assert wait_s is not None
    # Rounded up to whole seconds, and no more.
    assert (used - rate + 1) * 60 / rate <= wait_s < (used - rate + 1) * 60 / rate + 1 + 1e-6
    key.admit(float(wait_s))


def test_a_refused_request_takes_nothing() -> None:
    key = limits(requests=1, tokens=10)
    key.record_usage(20, 0.0)
    with pytest.raises(RateLimited, match="10 tokens a minute"):
        key.admit(0.0)
    assert (b"x-ratelimit-remaining-requests", b"1") in key.headers(0.0)


@given(rate=per_minute, steps=st.lists(st.tuples(st.floats(-10, 1000), amounts), max_size=30))
def test_a_bucket_never_holds_more_than_a_minutes_worth(rate: int, steps: list[tuple[float, int]]) -> None:
    """Also where a clock is read out of order."""
    bucket, now = Bucket.full(rate, 0.0), 0.0
    for pause, amount in steps:
        now += pause
        assert bucket.left(now) <= rate
        assert math.isfinite(bucket.seconds_to(1, now))
        bucket = bucket.without(amount, now)


def test_headers_are_those_that_openais_clients_read() -> None:
    key = limits(requests=60, tokens=600)
    key.admit(0.0)
    key.record_usage(660, 0.0)
    assert dict(key.headers(0.5)) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"500ms",
        b"x-ratelimit-limit-tokens": b"600",
        b"x-ratelimit-remaining-tokens": b"0",
        b"x-ratelimit-reset-tokens": b"1m6s",
    }


def test_a_key_without_limits_is_never_refused_and_told_nothing() -> None:
    key = limits()
    for _ in range(1000):
        key.admit(0.0)
    key.record_usage(10**9, 0.0)
    key.admit(0.0)
    assert key.headers(0.0) == []


@given(
    rate=st.integers(1, 2000),
    asked=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300) | st.none(), st.booleans()), max_size=30),
)
def test_answers_at_once_use_no_more_than_there_was_but_for_one_of_them(
    rate: int, asked: list[tuple[int, int | None, bool]]
) -> None:
    """Whatever they are told to stop at, and in whatever order they end."""
    room, key = 500, limits(tokens=rate)
    running: list[tuple[Reservation, int, int]] = []
    used = longest = 0

    def end() -> None:
        nonlocal used
        reservation, prompt, answer = running.pop(0)
        used += prompt + answer
        reservation.record_usage(Usage(prompt, answer, 0))

    for prompt, max_tokens, is_later in asked:
        try:
            reservation = calls(key).reserve(of(prompt, max_tokens, room))
        except RateLimited:
            if running:
                end()
            continue
        answer = min(room - prompt, room if max_tokens is None else max_tokens)
        running.append((reservation, prompt, answer))
        longest = max(longest, prompt + answer)
        if not is_later:
            reservation.record_prompt(prompt)
    while running:
        end()
    assert used <= rate - 1 + longest


def test_a_reservation_counts_as_used_and_the_rest_of_it_is_given_back() -> None:
    key = limits(tokens=300)
    first = calls(key).reserve(of(400, 100))
    with pytest.raises(TokensReserved, match="reserved what is left to this API key of its 300 tokens"):
        calls(key).reserve(of(1, 1))
    assert (b"x-ratelimit-remaining-tokens", b"0") in key.headers(0.0)
    # Bytes were counted until the tokens are known.
    first.record_prompt(80)
    second = calls(key).reserve(of(100, 100))
    first.record_usage(Usage(80, 10, 0))
    second.record_usage(None)
    assert (b"x-ratelimit-remaining-tokens", b"210") in key.headers(0.0)


def test_an_answer_of_unknown_length_reserves_all_that_there_is() -> None:
    key = limits(tokens=10**6)
    calls(key).reserve(of(10, None, None))
    with pytest.raises(TokensReserved):
        calls(key).reserve(of(10, None, None))


def test_one_that_was_refused_or_has_not_begun_costs_nothing() -> None:
    key = limits(tokens=100, concurrent=1)
    for _ in range(3):
        calls(key).reserve(of(5, 5)).record_usage(None)
    assert (b"x-ratelimit-remaining-tokens", b"100") in key.headers(0.0)


def test_a_key_has_so_many_answers_made_at_the_same_time() -> None:
    key = limits(concurrent=2)
    first, _ = calls(key).reserve(of(1, 1)), calls(key).reserve(of(1, 1))
    with pytest.raises(ConcurrencyLimited, match="2 answers are running") as refused:
        calls(key).reserve(of(1, 1))
    assert (refused.value.status, refused.value.retry_after_s) == (429, 1)
    first.record_usage(Usage(1, 1, 0))
    calls(key).reserve(of(1, 1))


def test_an_answer_of_several_rounds_is_one_answer_whose_rounds_are_not_refused() -> None:
    key = limits(tokens=10, concurrent=1)
    with calls(key).answer() as reserve:
        for tokens in (8, 8):
            with pytest.raises(ConcurrencyLimited):
                calls(key).reserve(of(1, 1))
            reserve(of(tokens, 1)).record_usage(Usage(tokens, 1, 0))
    with pytest.raises(RateLimited, match="has used its 10 tokens a minute") as refused:
        calls(key).reserve(of(1, 1))
    assert refused.value.retry_after_s == 54
    with pytest.raises(RateLimited), calls(key).answer():
        pass


def test_to_wait_for_others_takes_no_request_and_no_debt_is_forgotten() -> None:
    key = limits(tokens=10)
    calls(key).reserve(of(5, 5)).record_usage(Usage(5, 25, 0))
    with pytest.raises(RateLimited, match="has used its 10 tokens a minute") as refused:
        calls(key).reserve(of(1, 1))
    assert refused.value.retry_after_s == 126


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0201, "21ms"), (0.999, "999ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s"), (3601, "60m1s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
