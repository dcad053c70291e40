"""What several owners share: who may have more of it, and who gives way. Pure.

An owner is whatever requests are told apart by, such as a key or a group of keys. Where everything belongs to one
owner, nothing changes: what is oldest gives way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence


def may_take(own: int, total: int, places: int) -> bool:
    """Whether an owner who has ``own`` of the ``total`` places that are taken may have another of ``places``.

    As long as it has fewer than are free. The first to come gets half of all places, the next half of the rest: there
    is a place left for whoever comes late, and nobody has to be told how many there are.

    Source: A. Choudhury, E. Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998.
    """
    return own < places - total


def first_to_go(held: Sequence[tuple[Hashable, int]]) -> int:
    """Index of what is given up first: of all that the owner of most holds, the first in ``held``.

    Whoever holds less than an equal share of the whole loses nothing to others.

    Args:
        held: the owner and the size of everything, in the order in which it would go if all were of one owner.
    """
    amounts = amounts_of(held)
    most = max(amounts.values())
    return next(index for index, (owner, _) in enumerate(held) if amounts[owner] == most)


def amounts_of(held: Iterable[tuple[Hashable, int]]) -> Counter[Hashable]:
    """How much each owner holds."""
    amounts: Counter[Hashable] = Counter()
    for owner, size in held:
        amounts[owner] += size
    return amounts
