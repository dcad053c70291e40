"""How long OpenMP threads spin at a barrier before they sleep; measured in docs/performance.md.

llama.cpp's threads meet at a barrier several hundred times a token, and GNU OpenMP spins there for milliseconds: as
soon as another process or engine uses one of the cores, a token takes seconds. After a short spin the threads sleep
instead and free their core. libgomp reads the variable once, when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SPIN_VARIABLE: Final = "GOMP_SPINCOUNT"

SPIN_COUNT: Final = "1000"
# GNU OpenMP spins less only if its own process has more threads than cores. With several engine processes each would
# spin as if it had all cores, so the limit is lower.
_SPIN_COUNT_IN_PROCESSES: Final = "100"


def for_engine_process(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` with the spin count of engine processes, unless the user has set another one."""
    count = environment.get(SPIN_VARIABLE, SPIN_COUNT)
    return {**environment, SPIN_VARIABLE: _SPIN_COUNT_IN_PROCESSES if count == SPIN_COUNT else count}
