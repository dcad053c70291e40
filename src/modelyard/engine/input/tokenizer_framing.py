"""How a process that tokenises is asked, and what it answers. Imports nothing of llama.cpp."""

from __future__ import annotations

import struct
from typing import Final

# Bytes of UTF-8 that follow; whether special tokens are added; whether those that are spelt out count as such.
REQUEST: Final = struct.Struct("<Q??")
# Ids that follow, as 32-bit integers.
ANSWER: Final = struct.Struct("<Q")

CPU_S: Final = 5.0
CPU_S_OF_BYTE: Final = 5e-6


def cpu_seconds(length: int) -> float:
    """Processor time that a text of so many bytes may take: a million characters take 1 to 2.3 s."""
    return CPU_S + CPU_S_OF_BYTE * length
