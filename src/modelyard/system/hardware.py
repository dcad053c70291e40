"""What the machine has that llama.cpp might use, as Linux tells it; elsewhere little is known. Untested off Linux."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from modelyard.system.memory import CGROUPS, MEMINFO, OWN_CGROUPS

CPUINFO: Final = Path("/proc/cpuinfo")
HUGE_PAGES: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
DEVICE_FILES: Final = Path("/dev")

# Pattern under /dev -> maker of the accelerator. The first that matches counts: all of them have a node under dri.
_ACCELERATORS: Final = {"nvidia[0-9]*": "NVIDIA", "kfd": "AMD", "dri/renderD*": "other"}


def processor(cpuinfo: Path = CPUINFO) -> tuple[str, frozenset[str]]:
    """Name of the processor, and its features as Linux calls them, such as "avx2"; "" and none where it is not told.

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
    """(total, used) bytes of swap."""
    kib = {key: int(value.split()[0]) for key, value in _pairs(meminfo) if key in ("SwapTotal", "SwapFree")}
    total = kib.get("SwapTotal", 0) * 1024
    return total, total - kib.get("SwapFree", 0) * 1024


def cpu_quota(own_cgroups: Path = OWN_CGROUPS, cgroups: Path = CGROUPS) -> float | None:
    """Processors' worth of time that the smallest control group around this process may use; None: no limit.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst, cpu.max; Documentation/scheduler/sched-bwc.rst,
    cpu.cfs_quota_us and cpu.cfs_period_us of cgroup v1.
    """
    return min(_quotas(own_cgroups, cgroups), default=None)


def _quotas(own_cgroups: Path, cgroups: Path) -> Iterator[float]:
    for line in _lines(own_cgroups):
        _, controllers, path = line.split(":", 2)
        is_v1 = "cpu" in controllers.split(",")
        if controllers and not is_v1:
            continue
        root = cgroups / "cpu" if is_v1 else cgroups
        inner = root / path.lstrip("/")
        for folder in (inner, *(parent for parent in inner.parents if parent == root or root in parent.parents)):
            text = (
                " ".join(_lines(folder / "cpu.cfs_quota_us") + _lines(folder / "cpu.cfs_period_us"))
                if is_v1
                else " ".join(_lines(folder / "cpu.max"))
            )
            try:
                quota, period = map(int, text.split())
            except ValueError:
                # No such group here, or no limit: "max" is not a number.
                continue
            if quota > 0 and period > 0:
                yield quota / period


def huge_pages(setting: Path = HUGE_PAGES) -> str:
    """Which memory gets transparent huge pages: "always", "madvise" (what asks for them), "never"; "" if not told."""
    text = " ".join(_lines(setting))
    return text.partition("[")[2].partition("]")[0]


def accelerators(device_files: Path = DEVICE_FILES) -> tuple[str, ...]:
    """Makers of the accelerators whose drivers are loaded: "NVIDIA", "AMD", or "other"."""
    found = [maker for pattern, maker in _ACCELERATORS.items() if any(device_files.glob(pattern))]
    return tuple(maker for maker in found if maker != "other" or len(found) == 1)


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    for line in _lines(path):
        key, _, value = line.partition(":")
        yield key.strip(), value.strip()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
