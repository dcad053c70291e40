"""Contexts of a simulated world that grow and shrink, drawn from dice of their own."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from modelyard.yard.memory.footprint import ContextSize, Footprint

if TYPE_CHECKING:
    from support.simulation.world import World

CELLS = (1, 2, 4, 8)
ASK_AGAIN_S = 5.0
MAX_RESIZE_S = 0.3
# A growth that finds no memory is tried again, and seldom so often.
MAX_GROWTH_FAILURES_S = 8 * (ASK_AGAIN_S + MAX_RESIZE_S)


class Contexts:
    """What engines need of their contexts, and what becomes of the contexts."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"contexts {seed}")
        self.is_elastic = self.rng.random() < 0.6

    def elastic(self, whole: Footprint) -> Footprint:
        """Return a footprint that may have smaller contexts, too; of some models it is fixed."""
        rng = self.rng
        if not self.is_elastic or rng.random() < 0.2:
            return whole
        kinds = CELLS[rng.randint(0, 2) :]
        fixed = rng.randint(0, whole.context_bytes // 2)
        moving = whole.context_bytes - fixed
        sizes = tuple(ContextSize(cells, fixed + moving * cells // kinds[-1]) for cells in kinds)
        return replace(whole, sizes=sizes, cells=kinds[-1])

    def cells(self) -> int:
        """Return what a request needs, as far as that is known."""
        return self.rng.choice((0, 1, 1, 2, 3, 6)) if self.is_elastic else 0

    def wish(self, footprint: Footprint) -> tuple[int, int] | None:
        """Return what an engine needs and would use of cells; None where it has enough."""
        if self.rng.random() < 0.4:
            return None
        needed = self.rng.randint(1, footprint.whole.cells)
        return needed, self.rng.randint(needed, footprint.whole.cells)

    def outcome(self, sizes: Sequence[int]) -> tuple[int, str]:
        """Return what becomes of a context: ``sizes`` are those that it may have, the present one last."""
        *asked, present = sizes
        if self.rng.random() < 0.15:
            return present, "no memory"
        return (asked[0] if asked[0] > present else self.rng.choice(sizes)), ""

    def later(self, world: World, longest_s: float, outcome: Callable[[], None]) -> None:
        """Have ``outcome`` happen at a random time."""
        world.at(world.now + self.rng.random() * longest_s, outcome)


def with_context(footprint: Footprint, context_bytes: int) -> Footprint:
    """Return the footprint with a context of other bytes, and its other sizes in the same measure."""
    more = context_bytes - footprint.context_bytes
    sizes = tuple(ContextSize(cells, size + more) for cells, size in footprint.sizes)
    return replace(footprint, context_bytes=context_bytes, sizes=sizes)
