"""What a key may have in a minute, at any times and in any amounts."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.api.limits import Bucket, KeyLimits, duration
from modelyard.config import AccessKey
from modelyard.errors import RateLimited

per_minute = st.integers(1, 10**6)
pauses = st.lists(st.floats(0, 300), min_size=1, max_size=60)
amounts = st.integers(0, 10**6)


def limits(requests: int | None = None, tokens: int | None = None) -> KeyLimits:
    return KeyLimits(AccessKey("k", b"", None, frozenset(), requests, tokens), now=0.0)


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
    key.pay(used, 0.0)
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
    key.pay(20, 0.0)
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
    key.pay(660, 0.0)
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
    key.pay(10**9, 0.0)
    key.admit(0.0)
    assert key.headers(0.0) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0201, "21ms"), (0.999, "999ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s"), (3601, "60m1s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
