"""How much memory this process may have: of the machine, and of the control groups that it is in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# What is left to others where nothing is configured: other programs grow too.
DEFAULT_SHARE = 0.8

MEMINFO = Path("/proc/meminfo")
OWN_CGROUPS = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")


def budget_bytes(setting: int | float | None, available: int, total: int) -> int:
    """The memory budget in bytes: ``setting`` bytes, or that fraction of ``total``; None: 80 % of ``available``."""
    if setting is None:
        return int(DEFAULT_SHARE * available)
    return int(setting * total) if isinstance(setting, float) else setting


def total_bytes(meminfo: Path = MEMINFO, own_cgroups: Path = OWN_CGROUPS, cgroups: Path = CGROUPS) -> int:
    """Memory of the machine, or of the smallest control group around this process."""
    return min([_meminfo(meminfo, "MemTotal"), *(limit for limit, _ in _limits(own_cgroups, cgroups))])


def physical_bytes(meminfo: Path = MEMINFO) -> int:
    """Memory of the machine, whatever this process may have of it."""
    return _meminfo(meminfo, "MemTotal")


def available_bytes(meminfo: Path = MEMINFO, own_cgroups: Path = OWN_CGROUPS, cgroups: Path = CGROUPS) -> int:
    """Memory that this process can still take before the machine swaps or a control group ends it."""
    left = (limit - used for limit, used in _limits(own_cgroups, cgroups))
    return max(0, min([_meminfo(meminfo, "MemAvailable"), *left]))


def _meminfo(path: Path, key: str) -> int:
    """Source: Linux, Documentation/filesystems/proc.rst, meminfo; in KiB."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        # Not Linux; untested.
        lines = []
    for line in lines:
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    # What is free is not told, so all of it has to do.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits(own_cgroups: Path, cgroups: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) of every control group around this process that has a limit.

    File pages that the kernel can drop do not count as used.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst, memory.max, memory.high, memory.current, memory.stat;
    cgroup-v1/memory.rst.
    """
    try:
        lines = own_cgroups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            for folder in _upwards(cgroups, path):
                for name in ("memory.max", "memory.high"):
                    yield from _limit(folder, name, "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            for folder in _upwards(cgroups / "memory", path):
                yield from _limit(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """The folder of the group and those of all groups around it. In a namespace, the root is the group itself."""
    folder = root / path.lstrip("/")
    while folder != root:
        yield folder
        folder = folder.parent
    yield root


def _limit(folder: Path, limit: str, used: str, droppable: str) -> Iterator[tuple[int, int]]:
    try:
        bound = int((folder / limit).read_text())
        taken = int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        # No such group here, or no limit: "max" is not a number.
        return
    yield bound, max(0, taken - int(stat.get(droppable, 0)))
