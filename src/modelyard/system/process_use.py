"""Processor time, page faults and state of a process, from Linux's ``/proc``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Indexes of fields in /proc/PID/stat after the command, which may contain anything and ends at the last parenthesis.
# Source: man 5 proc_pid_stat.
_STATE, _MAJOR_FAULTS, _USER, _SYSTEM, _START = 0, 9, 11, 12, 19
# States of a thread that sleeps (S), was stopped (T) or is idle in the kernel (I). A thread that runs or is ready to
# run (R), or waits for a disk (D) or a debugger (t), counts as using the machine.
_ASLEEP: Final = frozenset("STI")
_GONE: Final = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """Resources that a process has used since it started.

    Attributes:
        start: start time in ticks of the kernel, which distinguishes processes that had the same id.
        cpu_s: processor time of all its threads.
        major_faults: page faults that had to read from the disk.
        is_asleep: whether none of its threads runs, is ready to run, or waits for a disk.
        is_stopped: whether a signal has stopped it.
    """

    start: int
    cpu_s: float
    major_faults: int
    is_asleep: bool
    is_stopped: bool


def process_use(pid: int, *, has_threads: bool = True) -> ProcessUse | None:
    """Return the resources used by the process ``pid``; None if it has ended, or the system has no ``/proc``.

    Args:
        pid: process id.
        has_threads: whether ``is_asleep`` takes all its threads into account, or only the first one.
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
            # The thread ended since the folder was listed.
            continue


def _stat(path: Path) -> list[str]:
    return path.read_text("utf-8", "replace").rpartition(")")[2].split()
