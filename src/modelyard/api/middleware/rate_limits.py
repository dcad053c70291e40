"""Rate limits and concurrency limits of API keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from modelyard.config import AccessKey
from modelyard.errors import ConcurrencyLimited, RateLimited, TokensReserved
from modelyard.protocol.values import Usage
from modelyard.yard.requests.account import Reserve
from modelyard.yard.requests.token_estimate import TokenEstimate


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket: it holds ``level`` at the time ``at``, fills evenly, and holds at most one minute's worth.

    Usage that was not reserved may take it below 0; nothing is admitted until it has refilled.
    """

    per_minute: int
    level: float
    at: float

    @classmethod
    def full(cls, per_minute: int, now: float) -> Bucket:
        """Return a full bucket."""
        return cls(per_minute, float(per_minute), now)

    def left(self, now: float) -> float:
        """Return the level at ``now``."""
        return min(self.per_minute, self.level + max(0.0, now - self.at) * self.per_minute / 60)

    def without(self, amount: float, now: float) -> Bucket:
        """Return the bucket after ``amount`` was taken."""
        return replace(self, level=self.left(now) - amount, at=max(self.at, now))

    def seconds_to(self, level: float, now: float) -> float:
        """Return the seconds until the bucket holds ``level``."""
        return max(0.0, (level - self.left(now)) * 60 / self.per_minute)


class KeyLimits:
    """The limits of one key, and its current use of them."""

    def __init__(self, key: AccessKey, now: float) -> None:
        self._requests = _bucket(key.requests_per_minute, now)
        self._tokens = _bucket(key.tokens_per_minute, now)
        self._max_concurrent = key.max_concurrent
        self._running = 0
        self._reserved = 0

    @property
    def counts_tokens(self) -> bool:
        """Whether the key has a limit of tokens a minute."""
        return self._tokens is not None

    def admit(self, now: float) -> None:
        """Count a request, if the key may send one more and its tokens are not used up.

        Raises:
            RateLimited: a limit is reached; nothing was counted.
        """
        _check("tokens", self._tokens, now)
        _check("requests", self._requests, now)
        if self._requests is not None:
            self._requests = self._requests.without(1, now)

    def begin(self, now: float) -> None:
        """Count a started answer, if the key may have one more at the same time and has unreserved tokens.

        At most one of the concurrent answers may therefore use more tokens than the key had left.

        Raises:
            ConcurrencyLimited, RateLimited: a limit is reached; nothing was counted.
        """
        if self._max_concurrent is not None and self._running >= self._max_concurrent:
            raise ConcurrencyLimited(self._max_concurrent)
        _check("tokens", self._tokens, now)
        if self._tokens is not None and self._tokens.left(now) - self._reserved < 1:
            raise TokensReserved(self._tokens.per_minute)
        self._running += 1

    def end(self, tokens: int, now: float) -> None:
        """Count an answer that has ended, and its tokens."""
        self._running -= 1
        self.record_usage(tokens, now)

    def record_usage(self, tokens: int, now: float) -> None:
        """Take used tokens from the bucket."""
        if self._tokens is not None:
            self._tokens = self._tokens.without(tokens, now)

    def reserve(self, before: int, estimate: TokenEstimate) -> int:
        """Reserve tokens for an answer in place of ``before``; the tokens of a minute if the estimate has no total."""
        if self._tokens is None:
            return 0
        amount = self._tokens.per_minute if estimate.total is None else estimate.total
        self._reserved += amount - before
        return amount

    def release(self, amount: int) -> None:
        """Release ``amount`` reserved tokens."""
        self._reserved -= amount

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """Return OpenAI's rate limit headers. Source: OpenAI's guide to rate limits, section on headers."""
        headers = []
        for what, bucket, reserved in (("requests", self._requests, 0), ("tokens", self._tokens, self._reserved)):
            if bucket is not None:
                values = (
                    ("limit", str(bucket.per_minute)),
                    ("remaining", str(max(0, math.floor(bucket.left(now) - reserved)))),
                    ("reset", duration(bucket.seconds_to(bucket.per_minute, now))),
                )
                headers += [(f"x-ratelimit-{name}-{what}".encode(), value.encode()) for name, value in values]
        return headers


class CallLimits:
    """The limits of one key, in the interface of the yard.

    Args:
        limits: the limits of the key.
        clock: returns monotonic seconds.

    Attributes:
        counts_tokens: whether the key has a limit of tokens a minute.
    """

    def __init__(self, limits: KeyLimits, clock: Callable[[], float]) -> None:
        self.counts_tokens = limits.counts_tokens
        self._limits, self._clock = limits, clock

    def reserve(self, estimate: TokenEstimate) -> Reservation:
        """Start an answer, and reserve its tokens.

        Raises:
            ConcurrencyLimited, RateLimited: a limit is reached; nothing was reserved.
        """
        self._limits.begin(self._clock())
        return Reservation(self._limits, self._clock, estimate, self._limits.end)

    @contextmanager
    def answer(self) -> Iterator[Reserve]:
        """Enter with what reserves the tokens of each round of one answer; see ``UsageLimits.answer``."""
        self._limits.begin(self._clock())
        try:
            yield lambda estimate: Reservation(self._limits, self._clock, estimate, self._limits.record_usage)
        finally:
            self._limits.end(0, self._clock())


class Reservation:
    """The reserved tokens of one answer, or of one of its rounds.

    Args:
        limits: of the key.
        clock: returns monotonic seconds.
        estimate: of the tokens.
        settle: counts the used tokens at a time; at the end of an answer, also that it has ended.
    """

    def __init__(
        self,
        limits: KeyLimits,
        clock: Callable[[], float],
        estimate: TokenEstimate,
        settle: Callable[[int, float], None],
    ) -> None:
        self._limits, self._clock, self._estimate, self._settle = limits, clock, estimate, settle
        self._reserved = limits.reserve(0, estimate)

    def record_prompt(self, prompt_tokens: int) -> None:
        """Correct the reservation now that the length of the prompt is known."""
        self._reserved = self._limits.reserve(self._reserved, self._estimate.accepted(prompt_tokens))

    def record_usage(self, usage: Usage | None) -> None:
        """Count the used tokens and release the reservation."""
        self._limits.release(self._reserved)
        tokens = 0 if usage is None else usage.prompt_tokens + usage.completion_tokens
        self._settle(tokens, self._clock())


def duration(seconds: float) -> str:
    """Return a duration in OpenAI's format: ``20ms``, ``1s``, ``6m0s``; rounded up to the last shown unit."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _bucket(per_minute: int | None, now: float) -> Bucket | None:
    return None if per_minute is None else Bucket.full(per_minute, now)


def _check(what: Literal["requests", "tokens"], bucket: Bucket | None, now: float) -> None:
    # Rounded to the microsecond: otherwise a millionth of a token of rounding error would cost a whole second.
    if bucket is not None and (wait_s := round(bucket.seconds_to(1, now), 6)) > 0:
        raise RateLimited(what, bucket.per_minute, math.ceil(wait_s))
