"""The hardware that llama.cpp can use, as Linux reports it. Other systems report little and are untested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from modelyard.system.cgroups import CGROUPS, OWN_CGROUPS, ControlGroup, control_groups, lines
from modelyard.system.memory import MEMINFO

CPUINFO: Final = Path("/proc/cpuinfo")
HUGE_PAGES: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
DEVICE_FILES: Final = Path("/dev")

# Nodes under /dev of accelerators whose drivers are loaded: of NVIDIA, of AMD, of any maker.
_ACCELERATORS: Final = ("nvidia[0-9]*", "kfd", "dri/renderD*")


def processor(cpuinfo: Path = CPUINFO) -> tuple[str, frozenset[str]]:
    """Return the processor's name, and its features by Linux's names, such as "avx2"; "" and none if unknown.

    Source: Linux, Documentation/filesystems/proc.rst, cpuinfo: "flags" on x86, "Features" on Arm.
    """
    name, flags = "", frozenset[str]()
    for key, value in _pairs(cpuinfo):
        if key == "model name" and not name:
            name = value
        if key in ("flags", "Features") and not flags:
            flags = frozenset(value.split())
    return name, flags


def swap(meminfo: Path = MEMINFO) -> tuple[int, int]:
    """Return (total, used) bytes of swap."""
    kib = {key: int(value.split()[0]) for key, value in _pairs(meminfo) if key in ("SwapTotal", "SwapFree")}
    total = kib.get("SwapTotal", 0) * 1024
    return total, total - kib.get("SwapFree", 0) * 1024


def cpu_quota(own_cgroups: Path = OWN_CGROUPS, cgroups: Path = CGROUPS) -> float | None:
    """Return the smallest CPU quota of the control groups around this process, in cores; None: no limit.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst, cpu.max; Documentation/scheduler/sched-bwc.rst,
    cpu.cfs_quota_us and cpu.cfs_period_us of cgroup v1.
    """
    quotas = (_quota(group) for group in control_groups("cpu", own_cgroups, cgroups))
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(group: ControlGroup) -> float | None:
    files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if group.is_v1 else ("cpu.max",)
    try:
        quota, period = (int(word) for file in files for line in lines(group.folder / file) for word in line.split())
    except ValueError:
        # The group has no such files, or no limit: "max" is not a number.
        return None
    return quota / period if quota > 0 and period > 0 else None


def huge_pages(setting: Path = HUGE_PAGES) -> str:
    """Return which memory gets transparent huge pages: "always", "madvise" (on request), "never"; "" if unknown."""
    text = " ".join(lines(setting))
    return text.partition("[")[2].partition("]")[0]


def has_accelerator(device_files: Path = DEVICE_FILES) -> bool:
    """Return whether the driver of an accelerator is loaded."""
    return any(any(device_files.glob(pattern)) for pattern in _ACCELERATORS)


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    for line in lines(path):
        key, _, value = line.partition(":")
        yield key.strip(), value.strip()
