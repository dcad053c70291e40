"""How much a key may have in a minute, and at the same time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from modelyard.config import AccessKey
from modelyard.errors import ConcurrencyLimited, RateLimited, TokensReserved
from modelyard.protocol.values import Usage
from modelyard.yard.requests.token_estimate import TokenEstimate


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is left of ``per_minute``: ``level``, at the time ``at``. It fills evenly, and holds one minute's worth.

    What was used without being asked for takes it below 0: a debt that is paid off before anything else is had.
    """

    per_minute: int
    level: float
    at: float

    @classmethod
    def full(cls, per_minute: int, now: float) -> Bucket:
        """One of which nothing was taken."""
        return cls(per_minute, float(per_minute), now)

    def left(self, now: float) -> float:
        """What is in it by now."""
        return min(self.per_minute, self.level + max(0.0, now - self.at) * self.per_minute / 60)

    def without(self, amount: float, now: float) -> Bucket:
        """The same, when ``amount`` was taken."""
        return replace(self, level=self.left(now) - amount, at=max(self.at, now))

    def seconds_to(self, level: float, now: float) -> float:
        """How long it takes until there is so much in it."""
        return max(0.0, (level - self.left(now)) * 60 / self.per_minute)


class KeyLimits:
    """The rates of one key, and what it has at the moment. Not pure, but all that changes is in here."""

    def __init__(self, key: AccessKey, now: float) -> None:
        self._requests = _bucket(key.requests_per_minute, now)
        self._tokens = _bucket(key.tokens_per_minute, now)
        self._max_concurrent = key.max_concurrent
        self._running = 0
        self._reserved = 0

    @property
    def counts_tokens(self) -> bool:
        """Whether it has a rate of tokens."""
        return self._tokens is not None

    def admit(self, now: float) -> None:
        """Take a request, where the key may have one more and is not in debt for tokens.

        Raises:
            RateLimited: it may not; nothing was taken.
        """
        _check("tokens", self._tokens, now)
        _check("requests", self._requests, now)
        if self._requests is not None:
            self._requests = self._requests.without(1, now)

    def begin(self, now: float) -> None:
        """Begin an answer, where the key may have one more at the same time and not all of its tokens are reserved.

        So all that are being made use no more than there was, but for one of them.

        Raises:
            ConcurrencyLimited, RateLimited: it may not; nothing was taken.
        """
        if self._max_concurrent is not None and self._running >= self._max_concurrent:
            raise ConcurrencyLimited(self._max_concurrent)
        _check("tokens", self._tokens, now)
        if self._tokens is not None and self._tokens.left(now) - self._reserved < 1:
            raise TokensReserved(self._tokens.per_minute)
        self._running += 1

    def end(self, tokens: int, now: float) -> None:
        """An answer is over, and took so many tokens."""
        self._running -= 1
        self.pay(tokens, now)

    def pay(self, tokens: int, now: float) -> None:
        """Take tokens that were used."""
        if self._tokens is not None:
            self._tokens = self._tokens.without(tokens, now)

    def reserve(self, before: int, estimate: TokenEstimate) -> int:
        """Reserve for an answer what it may take, in place of ``before``: all of a minute where nobody knows."""
        if self._tokens is None:
            return 0
        amount = self._tokens.per_minute if estimate.total is None else estimate.total
        self._reserved += amount - before
        return amount

    def release(self, amount: int) -> None:
        """Reserve so many tokens no longer."""
        self._reserved -= amount

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """What is left, as OpenAI's clients read it. Source: OpenAI's guide to rate limits, section on headers."""
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
    """The limits of one key, as the yard asks for them.

    Args:
        clock: seconds that never go back.

    Attributes:
        counts_tokens: whether the key has a rate of tokens.
    """

    def __init__(self, limits: KeyLimits, clock: Callable[[], float]) -> None:
        self.counts_tokens = limits.counts_tokens
        self._limits, self._clock = limits, clock

    def reserve(self, estimate: TokenEstimate) -> Reservation:
        """Begin an answer.

        Raises:
            ConcurrencyLimited, RateLimited: the key may not have it now; nothing was taken.
        """
        self._limits.begin(self._clock())
        return Reservation(self._limits, self._clock, estimate)


class Reservation:
    """What one answer may take of its key's tokens, and its place among those that are made at the same time."""

    def __init__(self, limits: KeyLimits, clock: Callable[[], float], estimate: TokenEstimate) -> None:
        self._limits, self._clock, self._estimate = limits, clock, estimate
        self._reserved = limits.reserve(0, estimate)

    def record_prompt(self, prompt_tokens: int) -> None:
        """Reserve what is now known to be the most."""
        self._reserved = self._limits.reserve(self._reserved, self._estimate.accepted(prompt_tokens))

    def record_usage(self, usage: Usage | None) -> None:
        """Take what was used, and give the rest back."""
        self._limits.release(self._reserved)
        tokens = 0 if usage is None else usage.prompt_tokens + usage.completion_tokens
        self._limits.end(tokens, self._clock())


def duration(seconds: float) -> str:
    """A duration as OpenAI writes it: ``20ms``, ``1s``, ``6m0s``; rounded up to what is shown."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _bucket(per_minute: int | None, now: float) -> Bucket | None:
    return None if per_minute is None else Bucket.full(per_minute, now)


def _check(what: Literal["requests", "tokens"], bucket: Bucket | None, now: float) -> None:
    # To the microsecond: a millionth of a token that rounding lost would cost a second more.
    if bucket is not None and (wait_s := round(bucket.seconds_to(1, now), 6)) > 0:
        raise RateLimited(what, bucket.per_minute, math.ceil(wait_s))
