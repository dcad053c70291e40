"""How much memory this process may use: of the machine, and within the control groups that it is in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from modelyard.system.cgroups import CGROUPS, OWN_CGROUPS, control_groups, lines

# The rest is left to other programs, which may grow.
DEFAULT_SHARE = 0.8

MEMINFO = Path("/proc/meminfo")


def budget_bytes(setting: int | float | None, available: int, total: int) -> int:
    """Return the memory budget: ``setting`` bytes, or that fraction of ``total``; None: 80 % of ``available``."""
    if setting is None:
        return int(DEFAULT_SHARE * available)
    return int(setting * total) if isinstance(setting, float) else setting


def total_bytes(meminfo: Path = MEMINFO, own_cgroups: Path = OWN_CGROUPS, cgroups: Path = CGROUPS) -> int:
    """Return the memory of the machine, or the smallest limit of a control group around this process."""
    return min([_meminfo(meminfo, "MemTotal"), *(limit for limit, _ in _limits(own_cgroups, cgroups))])


def physical_bytes(meminfo: Path = MEMINFO) -> int:
    """Return the memory of the machine, without regard to control groups."""
    return _meminfo(meminfo, "MemTotal")


def available_bytes(meminfo: Path = MEMINFO, own_cgroups: Path = OWN_CGROUPS, cgroups: Path = CGROUPS) -> int:
    """Return the memory that this process can still take before the machine swaps or a control group kills it."""
    left = (limit - used for limit, used in _limits(own_cgroups, cgroups))
    return max(0, min([_meminfo(meminfo, "MemAvailable"), *left]))


def _meminfo(path: Path, key: str) -> int:
    """Return a value of /proc/meminfo in bytes; all physical memory if it is not there, as on systems without Linux.

    Source: Linux, Documentation/filesystems/proc.rst, meminfo; in KiB.
    """
    for line in lines(path):
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits(own_cgroups: Path, cgroups: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, used) bytes of every control group around this process that has a limit.

    File pages that the kernel can drop do not count as used: those that were used once, and of those that were used
    more often, such as the file of a model that was loaded again, all that are not mapped.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst, memory.max, memory.high, memory.current, memory.stat;
    cgroup-v1/memory.rst.
    """
    for folder, is_v1 in control_groups("memory", own_cgroups, cgroups):
        if is_v1:
            yield from _limit(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_", "total_mapped_file")
        else:
            for name in ("memory.max", "memory.high"):
                yield from _limit(folder, name, "memory.current", "", "file_mapped")


def _limit(folder: Path, limit: str, used: str, prefix: str, mapped: str) -> Iterator[tuple[int, int]]:
    try:
        limit_bytes = int((folder / limit).read_text())
        used_bytes = int((folder / used).read_text())
        stat = {key: int(value) for key, value in map(str.split, (folder / "memory.stat").read_text().splitlines())}
    except (OSError, ValueError):
        # The group has no such files, or no limit: "max" is not a number.
        return
    active_bytes = max(0, stat.get(f"{prefix}active_file", 0) - stat.get(mapped, 0))
    yield limit_bytes, max(0, used_bytes - stat.get(f"{prefix}inactive_file", 0) - active_bytes)
