"""What sets of models take of the pools of memory together: of the host, and of each device. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modelyard.protocol.placement import HOST_NAME
from modelyard.yard.memory.footprint import Footprint


def taken_bytes(footprints: Iterable[Footprint]) -> dict[str, int]:
    """Return the bytes that models take of each pool while all are resident; shared weights count once."""
    weights: dict[tuple[str, str], int] = {}
    sums: dict[str, int] = {HOST_NAME: 0}
    for footprint in footprints:
        sums[HOST_NAME] += footprint.context_bytes
        for key, size in footprint.weights.items():
            weights[HOST_NAME, key] = max(size, weights.get((HOST_NAME, key), 0))
        for share in footprint.devices:
            place = share.pool, share.weights_key
            sums[share.pool] = sums.get(share.pool, 0) + share.context_bytes
            weights[place] = max(share.weights_bytes, weights.get(place, 0))
    for (pool, _), size in weights.items():
        sums[pool] += size
    return sums


def exceeded_pools(footprints: Iterable[Footprint], budgets: Mapping[str, int]) -> tuple[str, ...]:
    """Return the pools that models need more of together than the budgets have; a pool without a budget has none."""
    return tuple(pool for pool, size in taken_bytes(footprints).items() if size > budgets.get(pool, 0))
