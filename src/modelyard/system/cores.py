"""How many cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

from modelyard.system.cgroups import CGROUPS, OWN_CGROUPS
from modelyard.system.hardware import cpu_quota


def usable_cores(own_cgroups: Path = OWN_CGROUPS, cgroups: Path = CGROUPS) -> int:
    """Return the whole cores that the affinity mask and the control groups leave to this process, at least 1.

    More threads than that make llama.cpp slower, not faster: its threads wait for each other at every layer.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = cpu_quota(own_cgroups, cgroups)
    return cores if quota is None else max(1, min(cores, int(quota)))
