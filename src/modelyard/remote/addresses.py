"""Chooses the address that a request goes to, and keeps what is known of each. Pure: the caller gives the time.

A request goes to the address that its conversation went to before, because the prefix is computed there, unless that
one has clearly more to do than another; then to the one with the least. An address that does not answer is left out
until a probe has reached it. One that answers that it is busy comes after the others for as long as it asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

FIRST_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 30.0

MAX_BUSY_S: Final = 60.0
"""Seconds that an address comes after the others at most, whatever time it asks for."""

MORE_REQUESTS: Final = 2
"""Requests that the address of a conversation may have more than the least busy one."""


@dataclass(slots=True)
class Address:
    """What is known of one address.

    Attributes:
        url: its base URL.
        running: requests that are with it.
        failures: how often in a row it did not answer.
        problem: why it did not; "" where it answers.
        probe_at: when it is tried again, in the caller's seconds; only where it does not answer.
        busy_until: until when it comes after the others.
    """

    url: str
    running: int = 0
    failures: int = 0
    problem: str = ""
    probe_at: float = 0.0
    busy_until: float = 0.0

    @property
    def is_up(self) -> bool:
        """Whether it answered when it was last asked, or was not asked yet."""
        return not self.failures

    def fail(self, problem: str, now: float) -> None:
        """Note that it did not answer: it is left out, and tried again after a time that doubles."""
        self.failures += 1
        self.problem = problem
        self.probe_at = now + backoff_s(self.failures)

    def answer(self) -> None:
        """Note that it answers."""
        self.failures, self.problem = 0, ""

    def be_busy(self, seconds: float, now: float) -> None:
        """Note that it asks for so many seconds without requests."""
        self.busy_until = now + min(max(seconds, 0.0), MAX_BUSY_S)


def backoff_s(failures: int) -> float:
    """Return the seconds after which an address is tried again that has failed so often in a row."""
    doublings = min(failures - 1, 16)
    return min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0**doublings)


def choose(addresses: Collection[Address], key: str, now: float, tried: Collection[str] = ()) -> Address | None:
    """Return the address for a request; None where none is left.

    Args:
        addresses: all of the model.
        key: equal for the requests of one conversation; "": it has none.
        now: the present time.
        tried: URLs that the request has been sent to in vain.
    """
    left = [address for address in addresses if address.is_up and address.url not in tried]
    ready = [address for address in left if address.busy_until <= now] or left
    if not ready:
        return None
    least = min(address.running for address in ready)
    if key:
        preferred = max(ready, key=lambda address: _rank(key, address.url))
        if preferred.running <= least + MORE_REQUESTS:
            return preferred
    idle = [address for address in ready if address.running == least]
    # Spread by the key, or those that begin at once would all go to the first one.
    return max(idle, key=lambda address: _rank(key, address.url)) if key else idle[0]


def retry_after_s(addresses: Collection[Address], now: float) -> int:
    """Return the whole seconds until the first address that does not answer is tried again; at least 1."""
    probes = [address.probe_at - now for address in addresses if not address.is_up]
    return max(1, round(min(probes, default=1.0)))


def _rank(key: str, url: str) -> bytes:
    """Return the rank of an address for a conversation: it stays the same when other addresses come and go."""
    return hashlib.blake2b(f"{key}\n{url}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
