"""Divides a resource among owners: whether an owner may take more of it, and whose part is evicted. Pure.

Requests are assigned to owners by, for example, their key or a group of keys. With a single owner everything is in the
order of age: the oldest is evicted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence


def may_take(own: int, total: int, places: int) -> bool:
    """Whether an owner who has ``own`` of the ``total`` occupied places may take another of ``places``.

    It may while it has fewer than are free. The first owner gets up to half of all places, the next half of the rest: a
    place is left for late comers without knowing the number of owners.

    Source: A. Choudhury, E. Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998.
    """
    return own < places - total


def first_to_go(held: Sequence[tuple[Hashable, int]]) -> int:
    """Return the index of the item to evict first: the first item in ``held`` of the owner who holds most.

    An owner who holds less than an equal share loses nothing to others.

    Args:
        held: owner and size of every item, in the order in which they would be evicted if all had one owner.
    """
    amounts = amounts_of(held)
    largest = max(amounts.values())
    return next(index for index, (owner, _) in enumerate(held) if amounts[owner] == largest)


def amounts_of(held: Iterable[tuple[Hashable, int]]) -> Counter[Hashable]:
    """Return how much each owner holds."""
    amounts: Counter[Hashable] = Counter()
    for owner, size in held:
        amounts[owner] += size
    return amounts
