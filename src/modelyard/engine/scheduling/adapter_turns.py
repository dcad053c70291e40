"""Which adapters a step computes with, where running sequences use several sets of them. Pure.

llama.cpp applies the same adapters to all tokens of a step, and plans its graphs and buffers again when they change,
which takes from some milliseconds to some tens of them. So sets take turns, each for a few steps.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from modelyard.engine.kv.adapter_set import NO_ADAPTERS, AdapterSet

# How long a set is computed before the next one, in estimated seconds: ten times what a change takes, and a pause that
# readers of the other streams hardly see. A step of a large model takes longer, and its sets change with each step.
TURN_S: Final = 0.1


class AdapterTurns:
    """The turns of sets of adapters: each goes behind the others when its turn is over, and a new one too.

    Attributes:
        current: the set whose turn it is.
    """

    def __init__(self) -> None:
        self.current: AdapterSet = NO_ADAPTERS
        self._computed_s = 0.0
        # In the order of their next turns; the current one is among them.
        self._order: list[AdapterSet] = []

    def begin(self, sets: Collection[AdapterSet]) -> AdapterSet:
        """Return the set of the next step, of those that sequences wait with; the current one while its turn goes on.

        Args:
            sets: at least one.
        """
        if len(sets) == 1 and self.current in sets:
            return self.current
        staying = [each for each in self._order if each in sets]
        # Sorted, so that the order of several new ones does not depend on that of a set.
        self._order = [*staying, *sorted(each for each in sets if each not in staying)]
        is_over = self._computed_s >= TURN_S
        if is_over and self.current in sets:
            self._order.remove(self.current)
            self._order.append(self.current)
        if is_over or self.current not in sets:
            self.current, self._computed_s = self._order[0], 0.0
        return self.current

    def charge(self, seconds: float) -> None:
        """Count the time of a step for the current turn."""
        self._computed_s += seconds
