"""Memory that models take together, kept up to date while models are added and removed."""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.protocol.placement import HOST_NAME
from modelyard.yard.memory.footprint import Footprint


class Ledger:
    """Bytes of each pool that models take together; shared weights count once, with the largest of their sizes.

    It gives what ``taken_together`` gives, without adding up all models again for each one that comes or goes.

    Attributes:
        taken: bytes by pool.
    """

    def __init__(self) -> None:
        self.taken = {HOST_NAME: 0}
        self._weights: dict[tuple[str, str], list[int]] = {}

    def add(self, footprint: Footprint, *, has_context: bool = True) -> None:
        """Add a model, or its weights alone."""
        for pool, key, weights_bytes, context_bytes in _parts(footprint):
            sizes = self._weights.setdefault((pool, key), [])
            before = max(sizes, default=0)
            sizes.append(weights_bytes)
            grown = max(0, weights_bytes - before) + (context_bytes if has_context else 0)
            self.taken[pool] = self.taken.get(pool, 0) + grown

    def remove(self, footprint: Footprint, *, has_context: bool = True) -> None:
        """Remove a model, or weights alone, that was added."""
        for pool, key, weights_bytes, context_bytes in _parts(footprint):
            sizes = self._weights[pool, key]
            sizes.remove(weights_bytes)
            shrunk = max(0, weights_bytes - max(sizes, default=0)) + (context_bytes if has_context else 0)
            self.taken[pool] -= shrunk

    def add_host_bytes(self, size: int) -> None:
        """Add bytes of the host that no model shares, or remove them with a negative size."""
        self.taken[HOST_NAME] += size


def _parts(footprint: Footprint) -> Iterator[tuple[str, str, int, int]]:
    """Yield the pool, the key and the bytes of all weights, with the bytes of context beside them."""
    yield HOST_NAME, footprint.weights_key, footprint.weights_bytes, footprint.context_bytes
    if footprint.draft_key:
        yield HOST_NAME, footprint.draft_key, footprint.draft_bytes, 0
    for share in footprint.devices:
        yield share.pool, share.weights_key, share.weights_bytes, share.context_bytes
