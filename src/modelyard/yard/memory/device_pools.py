"""Which memory a device has, and how fast it is read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from modelyard.engine.placing import REMOTE, LlamaDevice
from modelyard.protocol.placement import HOST_NAME

_UNIFIED: Final = frozenset({"MTL", "Metal"})
"""Names of llama.cpp's backend for Apple's devices, whose memory is the machine's, although it calls them "gpu"."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one place computes, for estimates that compare placements.

    Attributes:
        bytes_per_s: bytes of weights and cache that it reads in a second.
        crossing_s: seconds that it takes to hand a token's activations over to it, or to the next place.
    """

    bytes_per_s: float
    crossing_s: float


# Orders of magnitude: two channels of DDR5 as a processor reads them, a card of the middle class over PCI Express, a
# graphics unit beside the processor, and a card at the other end of a network of 10 Gbit/s.
HOST_SPEED: Final = Speed(20e9, 0.0)
_SPEEDS: Final[Mapping[str, Speed]] = {"gpu": Speed(400e9, 20e-6), "igpu": Speed(80e9, 10e-6)}
_REMOTE_SPEED: Final = Speed(400e9, 500e-6)


def pool_of(device: LlamaDevice) -> str:
    """Return the name of the pool of a device's memory; "host" where it shares the machine's memory."""
    return device.name if device.kind == "gpu" and device.backend not in _UNIFIED else HOST_NAME


def speed_of(device: LlamaDevice) -> Speed:
    """Return about how fast a device computes."""
    if device.backend == REMOTE:
        return _REMOTE_SPEED
    return _SPEEDS["igpu" if pool_of(device) == HOST_NAME else "gpu"]
