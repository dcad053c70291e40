"""How long threads of OpenMP spin at a barrier before they sleep: measured in docs/performance.md.

llama.cpp's threads meet at a barrier several hundred times a token, and GNU OpenMP spins there for milliseconds: as
soon as another process or engine takes one of the cores, a token takes seconds. With a short spin they sleep instead,
and the core is free. libgomp reads the variable once, when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SPIN_VARIABLE: Final = "GOMP_SPINCOUNT"

# GNU OpenMP spins less where its own process has more threads than cores.
SPIN_COUNT: Final = "1000"
# It knows nothing of other processes: where each engine is one, none may spin as if it had all cores.
_SPIN_COUNT_IN_PROCESSES: Final = "100"


def for_engine_process(environment: Mapping[str, str]) -> dict[str, str]:
    """``environment`` for a process of one of several engines, unless the user has chosen for all."""
    chosen = environment.get(SPIN_VARIABLE, SPIN_COUNT)
    return {**environment, SPIN_VARIABLE: _SPIN_COUNT_IN_PROCESSES if chosen == SPIN_COUNT else chosen}
