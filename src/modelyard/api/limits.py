"""How much a key may have in a minute. Pure: time enters as ``now``, in seconds of a clock that never goes back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from modelyard.config import AccessKey
from modelyard.errors import RateLimited


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
    """The rates of one key. Not pure, but all that changes are its buckets."""

    def __init__(self, key: AccessKey, now: float) -> None:
        self._requests = _bucket(key.requests_per_minute, now)
        self._tokens = _bucket(key.tokens_per_minute, now)

    def admit(self, now: float) -> None:
        """Take a request, where the key may have one more and is not in debt for tokens.

        Raises:
            RateLimited: it may not; nothing was taken.
        """
        _check("tokens", self._tokens, now)
        _check("requests", self._requests, now)
        if self._requests is not None:
            self._requests = self._requests.without(1, now)

    def pay(self, tokens: int, now: float) -> None:
        """Take tokens that were used: how many, nobody knew before."""
        if self._tokens is not None:
            self._tokens = self._tokens.without(tokens, now)

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """What is left, as OpenAI's clients read it. Source: OpenAI's guide to rate limits, section on headers."""
        headers = []
        for what, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket is not None:
                values = (
                    ("limit", str(bucket.per_minute)),
                    ("remaining", str(max(0, math.floor(bucket.left(now))))),
                    ("reset", duration(bucket.seconds_to(bucket.per_minute, now))),
                )
                headers += [(f"x-ratelimit-{name}-{what}".encode(), value.encode()) for name, value in values]
        return headers


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
