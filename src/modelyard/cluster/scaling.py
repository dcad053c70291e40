"""How many nodes there should be. Pure."""

from __future__ import annotations

import math
from typing import Final

MAX_GROWTH: Final = 2.0
"""How many times as many nodes there may be after one decision."""


def nodes_wanted(present: int, waiting: float, running: float, target_queue: float) -> int:
    """Return how many nodes there should be, at least one.

    Args:
        present: nodes that there are.
        waiting, running: requests on all of them together.
        target_queue: requests that may wait on a node.
    """
    present = max(1, present)
    if waiting > present * target_queue:
        return math.ceil(present * min(MAX_GROWTH, waiting / (present * target_queue)))
    # Nodes leave where nothing is asked for: what runs would have to go on elsewhere.
    return present if waiting or running else 1
