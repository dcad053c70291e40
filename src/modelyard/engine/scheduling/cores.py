"""How engines that compute at the same time divide the cores of the processor.

llama.cpp's threads meet at a barrier several hundred times a token. Where more of them compute than there are cores,
each barrier waits for a thread that the system has not given a core yet; a thread of its own for each core costs no
such waits, whatever the number of engines.
"""

from __future__ import annotations

from collections.abc import Sequence


def threads_of(place: int, usable: Sequence[int], cores: int, turn: int) -> int:
    """Return with how many threads an engine computes, at least 1.

    Cores that are left over when all have the same number go to the engines in turn.

    Args:
        place: index of the engine in ``usable``.
        usable: how many threads each engine that computes can use, in an order on which all engines agree: 1 for a
            model that is on accelerators.
        cores: number of cores.
        turn: a number that grows with time.
    """
    if usable[place] <= 1:
        return 1
    sharing = [at for at, threads in enumerate(usable) if threads > 1]
    each, left = divmod(max(0, cores - (len(usable) - len(sharing))), len(sharing))
    is_next = (sharing.index(place) + turn) % len(sharing) < left
    return max(1, min(usable[place], each + is_next))
