"""What a process uses of the machine, as Linux tells it under ``/proc``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Places in /proc/PID/stat behind the command, which may hold anything but ends with the last parenthesis.
# Source: man 5 proc_pid_stat.
_STATE, _MAJOR_FAULTS, _USER, _SYSTEM, _START = 0, 9, 11, 12, 19
# A thread that sleeps until something happens, that was stopped, or that the kernel parks. One that runs or would run
# if it had a core (R) uses the machine, and so does one that waits for a disk (D) or for a debugger (t).
_ASLEEP: Final = frozenset("STI")
_GONE: Final = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What a process has used since it began.

    Attributes:
        start: when it began, in ticks of the kernel: another process of its number began at another time.
        cpu_s: of all its threads.
        major_faults: pages that it waited for the disk for.
        is_asleep: whether none of its threads runs, would run if it had a core, or waits for a disk.
        is_stopped: whether a signal has stopped it.
    """

    start: int
    cpu_s: float
    major_faults: int
    is_asleep: bool
    is_stopped: bool


def process_use(pid: int, *, has_threads: bool = True) -> ProcessUse | None:
    """What the process ``pid`` uses; None where it is gone, or the system does not say.

    Args:
        pid: its number.
        has_threads: whether to look at each of its threads; else ``is_asleep`` is that of the first one.
    """
    try:
        fields = _stat(Path(f"/proc/{pid}/stat"))
        asleep = all(state in _ASLEEP for state in (_states(pid) if has_threads else (fields[_STATE],)))
    except (OSError, IndexError):
        return None
    if fields[_STATE] in _GONE:
        return None
    ticks = int(fields[_USER]) + int(fields[_SYSTEM])
    return ProcessUse(
        start=int(fields[_START]),
        cpu_s=ticks / os.sysconf("SC_CLK_TCK"),
        major_faults=int(fields[_MAJOR_FAULTS]),
        is_asleep=asleep,
        is_stopped=fields[_STATE] == "T",
    )


def _states(pid: int) -> Iterator[str]:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            yield _stat(thread / "stat")[_STATE]
        except (FileNotFoundError, ProcessLookupError):
            # It ended since the folder was listed.
            continue


def _stat(path: Path) -> list[str]:
    return path.read_text("utf-8", "replace").rpartition(")")[2].split()
