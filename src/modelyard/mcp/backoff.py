"""How long a client waits before it connects again. Pure."""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 1.0
MAX_S: Final = 60.0

_JITTER: Final = 0.25


def delay_s(failures: int, chance: float) -> float:
    """Return the seconds until the next attempt to connect.

    They double with each failure. The jitter keeps clients that lost the same server from returning at the same time.

    Args:
        failures: in a row, from 1.
        chance: from 0 to 1, drawn by the caller.
    """
    # Beyond 2**10 the bound holds anyway, and a large exponent would overflow.
    base = min(MAX_S, FIRST_S * 2.0 ** min(failures - 1, 10))
    return base * (1 - _JITTER * chance)
