"""Time limit of tokenising a text."""

from __future__ import annotations

from typing import Final

CPU_S: Final = 5.0
CPU_S_OF_BYTE: Final = 5e-6


def cpu_seconds(length: int) -> float:
    """Return the CPU time that a text of ``length`` bytes may take: a million characters take 1 to 2.3 s."""
    return CPU_S + CPU_S_OF_BYTE * length
