"""How many cores this process may really use."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(cpu_max: Path = CGROUP_CPU_MAX) -> int:
    """Whole cores that the affinity mask and the cgroup quota leave to this process, at least 1.

    More threads than that make llama.cpp slower, not faster: its threads wait for each other at every layer.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst, cpu.max: "$MAX $PERIOD" in microseconds, or "max".
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = map(int, cpu_max.read_text().split())
    except (OSError, ValueError):
        # No cgroup, or no quota: "max" is not a number.
        return cores
    return max(1, min(cores, quota // period))
