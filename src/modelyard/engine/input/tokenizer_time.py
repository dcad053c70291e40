"""How long a text may be tokenised."""

from __future__ import annotations

from typing import Final

CPU_S: Final = 5.0
CPU_S_OF_BYTE: Final = 5e-6


def cpu_seconds(length: int) -> float:
    """Processor time that a text of so many bytes may take: a million characters take 1 to 2.3 s."""
    return CPU_S + CPU_S_OF_BYTE * length
