"""How long OpenMP threads spin at a barrier before they sleep; measured in docs/performance.md.

llama.cpp's threads meet at a barrier several hundred times a token, and GNU OpenMP spins there for milliseconds: as
soon as another process uses one of the cores, a token takes seconds. After a short spin the threads sleep instead and
free their core. Too short a spin makes them sleep at most barriers, and waking a thread can take longer than what it is
woken for. libgomp reads the variable once, when it is loaded.
"""

from __future__ import annotations

from typing import Final

SPIN_VARIABLE: Final = "GOMP_SPINCOUNT"

SPIN_COUNT: Final = "2000"
