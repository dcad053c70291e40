"""How many cores this process may use, and on how many of them it should compute."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

from modelyard.system.cgroups import CGROUPS, OWN_CGROUPS
from modelyard.system.hardware import cpu_quota

# Linux's description of the machine.
DEVICES: Final = Path("/sys/devices")

# Up to so many logical processors are taken for cores where it is not known which of them share one.
# Source: llama.cpp, common/common.cpp, common_cpu_get_num_physical_cores.
_SURELY_CORES: Final = 4


def usable_cores(own_cgroups: Path = OWN_CGROUPS, cgroups: Path = CGROUPS) -> int:
    """Return the whole cores that the affinity mask and the control groups leave to this process, at least 1.

    More threads than that make llama.cpp slower, not faster: its threads wait for each other at every layer.
    """
    quota = cpu_quota(own_cgroups, cgroups)
    cores = _logical()
    return cores if quota is None else max(1, min(cores, int(quota)))


def compute_cores(own_cgroups: Path = OWN_CGROUPS, cgroups: Path = CGROUPS, devices: Path = DEVICES) -> int:
    """Return on how many cores llama.cpp computes fastest, at least 1 and at most ``usable_cores``.

    Two threads of one core share its arithmetic units, and a thread on an efficiency core keeps all others waiting, so
    each core counts once, and efficiency cores do not count. Source: llama.cpp, common/common.cpp,
    common_cpu_get_num_math, which counts in the same way.
    """
    usable = usable_cores(own_cgroups, cgroups)
    if sys.platform == "linux":
        return min(usable, _physical(os.sched_getaffinity(0), devices))
    if sys.platform == "darwin":
        return min(usable, _apple_cores() or usable)
    return usable if usable <= _SURELY_CORES else usable // 2


def _logical() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _physical(allowed: set[int], devices: Path) -> int:
    """Return how many cores have the processors ``allowed``, without efficiency cores where there are others."""
    # Only machines with two kinds of cores have it. Source: Linux, arch/x86/events/intel/core.c.
    fast = allowed & _processors(devices / "cpu_core" / "cpus") or allowed
    return len({_siblings(devices / "system" / "cpu" / f"cpu{number}") or str(number) for number in fast})


def _siblings(processor: Path) -> str:
    """Return the processors that share a core with this one; "" where that is not known."""
    try:
        return (processor / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return ""


def _processors(listing: Path) -> set[int]:
    """Return the numbers in a list such as "0-7,16"; none where it cannot be read."""
    try:
        parts = listing.read_text().strip().split(",")
        ranges = [(int(first), int(last or first)) for first, _, last in (part.partition("-") for part in parts)]
    except (OSError, ValueError):
        return set()
    return {number for first, last in ranges for number in range(first, last + 1)}


def _apple_cores() -> int:
    """Return the number of performance cores of a Mac, or of all its cores; 0 where it is not known."""
    count, size = ctypes.c_int32(0), ctypes.c_size_t(4)
    for name in (b"hw.perflevel0.physicalcpu", b"hw.physicalcpu"):
        if not ctypes.CDLL(None).sysctlbyname(name, ctypes.byref(count), ctypes.byref(size), None, 0):
            return count.value
    return 0
